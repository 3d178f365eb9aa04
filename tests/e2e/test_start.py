"""Starting and stopping: a fresh directory, a second start, and every reason not to start."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import MiB, STOP_SECONDS, Server, StartError, clean_env, payload, run, tree


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def refused_start(server, *argv, **env):
    """Runs `serve`, which must fail; its one line on standard error."""
    done = subprocess.run(
        [*server.argv(), *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
        env=clean_env(SEALGATE_LOG_FILTER="error", **env),
    )
    assert done.returncode not in (0, -signal.SIGABRT, 101), f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f"not one clear line:\n{done.stderr}"
    assert "panicked" not in lines[0]
    return lines[0]


def test_a_fresh_start_makes_everything_private(own_server):
    previous = os.umask(0)
    try:
        server = own_server.start()
    finally:
        os.umask(previous)
    assert mode(server.data_dir) == 0o700
    assert mode(server.credentials_path) == 0o600
    assert mode(server.data_dir / "root.key") == 0o600
    assert mode(server.nbd_socket) == 0o600 and stat.S_ISSOCK(os.lstat(server.nbd_socket).st_mode)
    for path in server.data_dir.rglob("*"):
        allowed = 0o700 if path.is_dir() else 0o600
        assert mode(path) & ~allowed == 0, f"{path}: {mode(path):o}"
    assert server.client("sts").get_caller_identity()["Account"] == "123456789012"
    for place in (server.endpoint.removeprefix("http://"), str(server.nbd_socket), f"127.0.0.1:{server.admin_port}"):
        assert place in server.log_text(), f"{place} was not printed"
    assert server.credentials[1] not in server.log_text()


def test_the_process_guards_itself(own_server):
    server = own_server.start()
    limits = {line[:26].strip(): line[26:].split() for line in open(f"/proc/{server.pid}/limits")}
    assert limits["Max core file size"][0] == "0", "core dumps would hold keys"
    key, secret = server.credentials
    for place in ("cmdline", "environ"):
        assert secret.encode() not in open(f"/proc/{server.pid}/{place}", "rb").read()
    listening = run("bash", "-c", f"cat /proc/{server.pid}/net/tcp | awk '$4 == \"0A\" {{print $2}}'").stdout.split()
    ours = {f"{p:04X}" for p in (server.aws_port, server.nbd_port, server.admin_port)}
    assert {l.split(":")[1] for l in listening} >= ours
    assert all(l.startswith("0100007F") for l in listening if l.split(":")[1] in ours), "listens beyond loopback"


def test_a_second_start_finds_everything_again(own_server):
    server = own_server.start()
    server.client("s3").create_bucket(Bucket="kept")
    server.client("s3").put_object(Bucket="kept", Key="k", Body=b"kept")
    key = server.client("kms").create_key()["KeyMetadata"]["KeyId"]
    volume = server.volume(KmsKeyId=key)
    before = server.credentials
    assert server.stop() < STOP_SECONDS
    server.start()
    assert server.credentials == before
    assert server.client("s3").get_object(Bucket="kept", Key="k")["Body"].read() == b"kept"
    assert [v["VolumeId"] for v in server.client("ec2").describe_volumes()["Volumes"]] == [volume]


def test_a_moved_data_directory_still_opens(own_server):
    server = own_server.start()
    server.client("s3").create_bucket(Bucket="moved")
    server.client("s3").put_object(Bucket="moved", Key="k", Body=b"kept")
    volume = server.volume()
    run("qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", server.uri(volume))
    server.stop()
    moved = server.base / "elsewhere"
    server.data_dir.rename(moved)
    server.data_dir = moved
    server.start()
    assert server.client("s3").get_object(Bucket="moved", Key="k")["Body"].read() == b"kept"
    assert "failed" not in run("qemu-io", "-f", "raw", "-c", "read -P 7 0 64k", server.uri(volume)).stdout


def test_a_held_directory_is_refused_and_its_holder_goes_on(own_server):
    server = own_server.start()
    second = Server(server.base / "second")
    second.data_dir = server.data_dir
    assert "in use" in refused_start(second)
    assert server.client("sts").get_caller_identity()
    server.restart()


@pytest.mark.parametrize("which", ["aws_port", "nbd_port", "admin_port"])
def test_a_port_in_use_is_refused_and_nothing_changes(own_server, which):
    server = own_server.start()
    server.client("s3").create_bucket(Bucket="bucket")
    server.stop()
    before = tree(server.data_dir)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", getattr(server, which)))
        taken.listen()
        line = refused_start(server)
    assert str(getattr(server, which)) in line and "in use" in line.lower(), line
    assert tree(server.data_dir) == before
    server.start()


def test_another_root_key_is_refused_and_nothing_changes(own_server, tmp_path):
    server = own_server.start()
    server.client("kms").create_key()
    server.stop()
    other = Server(tmp_path / "other").start()
    other.stop()
    right = (server.data_dir / "root.key").read_bytes()
    shutil.copy(other.data_dir / "root.key", server.data_dir / "root.key")
    before = tree(server.data_dir)
    assert "root key" in refused_start(server).lower()
    assert tree(server.data_dir) == before
    (server.data_dir / "root.key").write_bytes(right)
    server.start()


@pytest.mark.parametrize("damage", ["absent", "empty", "short", "changed"])
def test_a_lost_or_damaged_root_key_is_never_replaced(own_server, damage):
    server = own_server.start()
    server.client("kms").create_key()
    server.stop()
    path = server.data_dir / "root.key"
    right = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        bent = {"empty": b"", "short": right[:-3], "changed": right[:5] + bytes([right[5] ^ 1]) + right[6:]}[damage]
        path.write_bytes(bent)
    before = tree(server.data_dir)
    assert "root" in refused_start(server).lower()
    assert tree(server.data_dir) == before, "something was made in place of what is lost"
    path.write_bytes(right)
    path.chmod(0o600)
    server.start()


def test_a_root_key_that_others_may_read_is_not_taken_silently(own_server):
    server = own_server.start()
    server.stop()
    path = server.data_dir / "root.key"
    path.chmod(0o644)
    try:
        server.start()
    except StartError as error:
        assert "root.key" in str(error)
    else:
        assert mode(path) == 0o600 or "root.key" in server.log_text()
    path.chmod(0o600)


def test_an_unknown_configuration_key_is_refused_and_the_nearest_named(tmp_path):
    server = Server(tmp_path, config='[aws]\nlisten_adress = "127.0.0.1:1"\n')
    line = refused_start(server)
    assert "listen_adress" in line and "aws.listen" in line
    assert not server.data_dir.exists(), "something was made although the configuration is wrong"


@pytest.mark.parametrize(
    "config, word",
    [("[aws\n", "sealgate.toml"), ('regions = 3\n', "sealgate.toml"), ('accounts = ["12"]\n', "accounts"), ('[aws]\nlisten = "nowhere"\n', "sealgate.toml")],
)
def test_a_wrong_configuration_is_refused(tmp_path, config, word):
    server = Server(tmp_path, config=config)
    assert word in refused_start(server)
    assert not server.data_dir.exists()


def test_nbd_beyond_loopback_is_refused_without_tls(tmp_path):
    server = Server(tmp_path)
    argv = server.argv()
    argv[argv.index("--nbd-listen") + 1] = f"0.0.0.0:{server.nbd_port}"
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, env=clean_env())
    assert done.returncode != 0 and "TLS" in done.stderr
    assert not server.data_dir.exists()


@pytest.mark.parametrize("listen", ["--aws-listen", "--admin-listen"])
def test_plain_http_beyond_loopback_must_be_asked_for_by_name(tmp_path, listen):
    server = Server(tmp_path)
    argv = server.argv()
    at = argv.index(listen) + 1
    argv[at] = argv[at].replace("127.0.0.1", "0.0.0.0")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, env=clean_env())
    assert done.returncode != 0 and "--allow-plain-http" in done.stderr and listen[2:].replace("-", ".") in done.stderr
    assert not server.data_dir.exists()
    server.argv = lambda: [*argv, "--allow-plain-http"]
    server.start()
    server.stop()
    server.argv = lambda: argv
    server.extra_env = {"SEALGATE_ALLOW_PLAIN_HTTP": "true"}
    server.start()
    server.stop()


@pytest.mark.parametrize("part", ["credentials", "catalogue.db", "audit", "root.header", "objects/index.db", "root.key"])
def test_a_private_file_that_others_may_read_is_refused_by_name(own_server, part):
    own_server.start()
    own_server.stop()
    path = own_server.data_dir / part
    private = mode(path)
    path.chmod(private | 0o044)
    line = refused_start(own_server)
    assert str(path) in line and "chmod" in line
    assert mode(path) == private | 0o044, "what was refused was changed"
    path.chmod(private)
    own_server.start()
    own_server.stop()


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    server = Server(tmp_path)
    server.data_dir.mkdir()
    (server.data_dir / "thesis.tex").write_text("x")
    before = tree(server.data_dir)
    refused_start(server)
    assert tree(server.data_dir) == before


def test_the_configuration_file_and_environment_are_used(tmp_path):
    config = 'accounts = ["210987654321"]\nregions = ["eu-central-1"]\n[log]\nformat = "json"\n'
    server = Server(tmp_path, config=config, SEALGATE_LOG_FILTER="debug").start()
    try:
        key, secret = server.credentials
        import boto3

        sts = boto3.client("sts", endpoint_url=server.endpoint, region_name="eu-central-1", aws_access_key_id=key, aws_secret_access_key=secret)
        assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::210987654321:root"
        assert '"level":"' in server.log_text()
    finally:
        server.stop()
    assert not server.leaks(), "at level debug too, no secret is logged"


# ---- stopping ---------------------------------------------------------------------------------------


def test_sigterm_lets_what_is_under_way_finish(own_server):
    server = own_server.start()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="drain")
    body = payload(64 * MiB)
    s3.put_object(Bucket="drain", Key="k", Body=body)
    got = s3.get_object(Bucket="drain", Key="k")["Body"]
    read = got.read(MiB)
    stopper = threading.Thread(target=server.process.send_signal, args=(signal.SIGTERM,))
    stopper.start()
    stopper.join()
    time.sleep(0.2)
    assert read + got.read() == body, "a running download was cut"
    got.close()
    s3.close()
    assert server.process.wait(STOP_SECONDS) == 0
    server._gone()


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_idle_clients_do_not_hold_the_server(own_server, signal_):
    server = own_server.start()
    volume = server.volume()
    idle = []
    for port in (server.aws_port, server.admin_port, server.nbd_port):
        for _ in range(3):
            idle.append(socket.create_connection(("127.0.0.1", port)))
    client = subprocess.Popen(
        ["qemu-io", "-f", "raw", server.uri(volume)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=clean_env(),
    )
    try:
        client.stdin.write("write -P 9 0 64k\nflush\n")
        client.stdin.flush()
        while "ops" not in client.stdout.readline():
            pass
        server.client("s3").list_buckets()
        server.process.send_signal(signal_)
        assert server.process.wait(STOP_SECONDS) == 0
        server._gone()
    finally:
        for connection in idle:
            connection.close()
        client.kill()
        client.wait()
        client.stdin.close()
        client.stdout.close()
    server.start()
    assert "failed" not in run("qemu-io", "-r", "-f", "raw", "-c", "read -P 9 0 64k", server.uri(volume)).stdout


def test_a_download_that_nobody_reads_is_given_up_in_time(own_server):
    """It cannot be drained: the server gives up on it within the ten seconds, and exits 0."""
    server = own_server.start()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="stuck")
    s3.put_object(Bucket="stuck", Key="k", Body=payload(64 * MiB))
    got = s3.get_object(Bucket="stuck", Key="k")["Body"]
    got.read(1)
    assert server.stop() < STOP_SECONDS
    got.close()


def test_readyz_says_when_it_drains_and_healthz_lives(own_server):
    server = own_server.start()
    assert server.admin("/readyz")[0] == 200 and server.admin("/healthz")[0] == 200
    assert server.admin("/nothing")[0] == 404
