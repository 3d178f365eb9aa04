"""The binary's own commands, each a thin client of the running server."""

import json

import pytest

from harness import ACCOUNT, GiB, ROOT, SEALGATE, clean_env, run


def as_json(server, *argv):
    return json.loads(server.sealgate("--output", "json", *argv).stdout)


def test_env_points_every_stock_client_here(server):
    lines = server.sealgate("env").stdout
    script = f"eval \"$(sealgate env --data-dir '{server.data_dir}')\"; aws sts get-caller-identity --query Arn --output text; aws s3 ls"
    stale = clean_env(AWS_ACCESS_KEY_ID="stale", AWS_SECRET_ACCESS_KEY="stale", AWS_SESSION_TOKEN="stale")
    done = run("bash", "-euc", script, env=stale)
    assert done.stdout.startswith(f"arn:aws:iam::{ACCOUNT}:root")
    assert server.credentials[1] not in lines, "the secret stays in its file"
    assert f"export AWS_ENDPOINT_URL={server.endpoint}" in lines
    script = f"eval \"$(sealgate env --data-dir '{server.data_dir}')\"; python3 -c \"import boto3; print(boto3.client('kms').list_keys()['Keys'])\""
    run("bash", "-euc", script)


def test_volumes(server, ec2):
    made = as_json(server, "volume", "create", "--size", "1", "--name", "by-cli")
    made = made[0] if isinstance(made, list) else made
    volume = made["VolumeId"]
    found = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
    assert found["Encrypted"] and found["Size"] == 1 and found["Tags"] == [{"Key": "Name", "Value": "by-cli"}]
    table = server.sealgate("volume", "list").stdout
    row = next(line for line in table.splitlines() if volume in line)
    assert "by-cli" in row and "sealed" in row
    uri = row.split()[-1]
    assert run("nbdinfo", "--size", uri).stdout.strip() == str(GiB), "the printed URI is one to paste"
    done = server.sealgate("--output", "json", "volume", "create", "--size", "2", "--unencrypted")
    sealed = json.loads(done.stdout)
    sealed = sealed[0] if isinstance(sealed, list) else sealed
    assert sealed["Encrypted"] and "encryption by default is enabled" in done.stderr
    server.sealgate("volume", "delete", sealed["VolumeId"])
    with server.plain_volumes():
        plain = as_json(server, "volume", "create", "--size", "2", "--unencrypted")
    plain = plain[0] if isinstance(plain, list) else plain
    assert plain["Encrypted"] is False and plain["Size"] == 2
    assert {v["VolumeId"] for v in as_json(server, "volume", "list")} == {volume, plain["VolumeId"]}
    for each in (volume, plain["VolumeId"]):
        server.sealgate("volume", "delete", each)
    assert as_json(server, "volume", "list") == []
    done = server.sealgate("volume", "delete", volume, check=False)
    assert done.returncode != 0 and "InvalidVolume.NotFound" in done.stderr


def test_keys(server, kms):
    made = as_json(server, "key", "create", "--description", "from the command line", "--alias", "by-cli")
    described = kms.describe_key(KeyId="alias/by-cli")["KeyMetadata"]
    assert described["KeyId"] == made["KeyId"] and described["Description"] == "from the command line"
    listed = {k["KeyId"]: k for k in as_json(server, "key", "list")}
    assert listed[made["KeyId"]]["Aliases"] == ["alias/by-cli"]
    row = next(line for line in server.sealgate("key", "list").stdout.splitlines() if made["KeyId"] in line)
    assert "alias/by-cli" in row and "Enabled" in row
    done = server.sealgate("key", "create", "--alias", "by-cli", check=False)
    assert done.returncode != 0 and "alias/by-cli" in done.stderr
    server.sealgate("volume", "create", "--size", "1", "--kms-key-id", "alias/by-cli")


def test_jobs_of_a_fresh_server(server):
    assert as_json(server, "job", "list") == []
    assert server.sealgate("job", "list").stdout.split() == ["JOB", "KIND", "SUBJECT", "STATE", "DONE", "REASON"]
    done = server.sealgate("job", "cancel", "job-" + "0" * 32, check=False)
    assert done.returncode != 0 and "ResourceNotFoundException" in done.stderr
    done = server.sealgate("job", "cancel", "nonsense", check=False)
    assert done.returncode != 0 and "ValidationException" in done.stderr


def test_root_key_status_and_rotation(server, tmp_path):
    online = as_json(server, "root", "status")
    assert online["AnsweredBy"] == "server" and online["StoreKeyGeneration"] == 1 and online["StoreKeyRotating"] is False
    server.sealgate("root", "rotate", "--store-key", "--wait")
    online = as_json(server, "root", "status")
    assert online["StoreKeyGeneration"] == 2 and online["StoreKeyRotating"] is False
    running = server.sealgate("root", "rotate", check=False)
    assert running.returncode != 0 and "must be stopped" in running.stderr
    key = as_json(server, "key", "create")["KeyId"]
    server.stop()
    stopped = server.sealgate("root", "rotate", "--store-key", check=False)
    assert stopped.returncode != 0 and "sealgate serve" in stopped.stderr
    offline = as_json(server, "root", "status")
    assert offline["AnsweredBy"] == "header"
    assert {**offline, "AnsweredBy": ""} == {**online, "AnsweredBy": ""}

    # To a file elsewhere, and back: then the key in between and the first one open nothing.
    first, away = server.data_dir / "root.key", tmp_path / "away.key"
    saved = first.read_bytes()
    server.sealgate("root", "rotate", "--to-file", away)
    moved = as_json(server, "root", "status")
    assert moved["RootKeyId"] != online["RootKeyId"] and moved["StoreId"] == online["StoreId"]
    refused = server.sealgate("root", "rotate", check=False)
    assert refused.returncode != 0 and "does not open this store" in refused.stderr, "the old key is not the store's any more"
    first.unlink()
    config = tmp_path / "away.toml"
    config.write_text(f'[root_key]\nfile = "{away}"\n')
    server.sealgate("--config", config, "root", "rotate", "--to-file", first)
    server.start()
    assert [k["KeyId"] for k in as_json(server, "key", "list") if k["KeyId"] == key] == [key]
    back = as_json(server, "root", "status")
    assert back["RootKeyId"] not in (online["RootKeyId"], moved["RootKeyId"]) and back["AnsweredBy"] == "server"
    server.stop()
    current = first.read_bytes()
    first.write_bytes(saved)
    refused = server.sealgate("root", "rotate", check=False)
    assert refused.returncode != 0 and "does not open this store" in refused.stderr
    first.write_bytes(current)
    server.start()


def test_status(server):
    status = as_json(server, "status")
    assert status["State"] == "ready" and status["Runtime"]["aws"] == server.endpoint and status["Runtime"]["pid"] == server.pid
    assert "ready" in server.sealgate("status").stdout
    server.stop()
    for command in (["status"], ["volume", "list"], ["key", "list"], ["job", "list"]):
        done = server.sealgate(*command, check=False)
        assert done.returncode != 0 and "sealgate serve" in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    server.start()


def test_commands_without_a_data_directory_say_what_to_do(tmp_path):
    for command in (["env"], ["status"], ["volume", "list"]):
        done = run(SEALGATE, "--data-dir", tmp_path / "none", *command, check=False)
        assert done.returncode != 0 and "sealgate serve" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_config_check(tmp_path):
    run(SEALGATE, "config", "check", cwd=tmp_path)
    done = run(SEALGATE, "config", "check", "--config", ROOT / "config" / "sealgate.toml", cwd=tmp_path)
    assert "9000" in done.stdout
    bad = tmp_path / "bad.toml"
    bad.write_text("[s3]\nbucket_key_second = 3\n")
    done = run(SEALGATE, "config", "check", "--config", bad, check=False, cwd=tmp_path)
    assert done.returncode != 0 and "bucket_key_seconds" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    done = run(SEALGATE, "config", "check", "--config", tmp_path / "absent", check=False, cwd=tmp_path)
    assert done.returncode != 0 and "absent" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.toml"], "checking makes nothing"


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["serve", "--help"], ["volume", "create", "--help"], ["completions", "bash"]])
def test_help_and_completions(argv):
    assert run(SEALGATE, *argv).stdout.strip()


def test_wrong_usage_is_exit_two():
    for argv in ([], ["serv"], ["serve", "--no-such"], ["volume", "create"], ["volume", "create", "--size", "x"], ["key", "create", "--alias"]):
        assert run(SEALGATE, *argv, check=False).returncode == 2, argv


def test_no_colour_in_a_pipe(server):
    for argv in (["volume", "list"], ["key", "list"], ["status"]):
        assert "\x1b" not in server.sealgate(*argv).stdout
    assert "\x1b" not in server.log_text()
