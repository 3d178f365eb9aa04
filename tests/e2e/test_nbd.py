"""Volumes through stock NBD clients: nbdinfo, nbdcopy, qemu-io, qemu-img, fio."""

import json
import os
import subprocess
import time

import pytest

from harness import GiB, KiB, MiB, clean_env, payload, run

RAW = ("-f", "raw")


@pytest.fixture(scope="module", params=["unix", "tcp"])
def tcp(request):
    return request.param == "tcp"


@pytest.fixture
def uri(server, tcp):
    return server.uri(server.volume(), tcp)


def qemu_io(uri, *commands, check=True):
    done = run("qemu-io", *RAW, *(w for c in commands for w in ("-c", c)), uri, check=False)
    failed = done.returncode != 0 or "verification failed" in done.stdout
    assert not (check and failed), done.stdout + done.stderr
    return done


def image(tmp_path, size, seed=0, name="image"):
    path = tmp_path / name
    path.write_bytes(payload(size, seed))
    return path


def test_nbdinfo_tells_what_the_export_can(server, uri):
    info = json.loads(run("nbdinfo", "--json", uri).stdout)
    assert info["protocol"] == "newstyle-fixed" and info["structured"] is True
    export = info["exports"][0]
    assert export["export-size"] == GiB
    assert export["is_read_only"] is False
    for can in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df"):
        assert export[can] is True, can
    assert export["block_size_minimum"] == 1 and export["block_size_preferred"] == 4096
    assert export["block_size_maximum"] == 32 * MiB
    assert "base:allocation" in export["contexts"]


def test_every_volume_is_listed(server, tcp):
    made = {server.volume(), server.volume(Encrypted=False)}
    listing = f"nbd://127.0.0.1:{server.nbd_port}" if tcp else f"nbd+unix:///?socket={server.nbd_socket}"
    listed = {e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", listing).stdout)["exports"]}
    assert made <= listed


def test_an_export_that_is_not_there_is_refused(server, tcp):
    done = run("nbdinfo", server.uri("vol-00000000000000000", tcp), check=False)
    assert done.returncode != 0 and "server" in done.stderr.lower()
    assert run("nbdinfo", server.uri("../../etc/passwd", tcp), check=False).returncode != 0
    assert run("nbdinfo", server.uri("x" * 4000, tcp), check=False).returncode != 0


def test_a_new_volume_reads_as_zeros_and_says_it_is_a_hole(uri):
    qemu_io(uri, "read -P 0 0 32M", "read -P 0 1073737728 4096")
    extents = json.loads(run("nbdinfo", "--map", "--json", uri).stdout)
    assert all(e["type"] & 2 for e in extents), extents
    assert sum(e["length"] for e in extents) == GiB


def test_nbdcopy_there_and_back(uri, tmp_path):
    source = image(tmp_path, 48 * MiB + 512)
    run("nbdcopy", "--flush", source, uri)
    run("nbdcopy", "--connections=4", "--requests=32", uri, tmp_path / "back")
    assert os.path.getsize(tmp_path / "back") == GiB
    run("cmp", "--bytes", 48 * MiB + 512, source, tmp_path / "back")


def test_nbdcopy_over_several_connections(uri, tmp_path):
    source = image(tmp_path, 64 * MiB)
    run("nbdcopy", "--flush", "--connections=4", "--requests=64", "--request-size=1048576", source, uri)
    run("nbdcopy", uri, tmp_path / "back")
    run("cmp", "--bytes", 64 * MiB, source, tmp_path / "back")
    with open(tmp_path / "back", "rb") as file:
        assert not any(os.pread(file.fileno(), MiB, 64 * MiB))


def test_patterns_at_every_alignment(uri):
    commands = []
    for n, (offset, length) in enumerate([(0, 4096), (1, 1), (511, 2), (4095, 2), (4097, 8190), (524287, 2), (524288, 1048576), (3145727, 600001), (1073741823, 1), (1073737000, 4824)], 1):
        commands.append(f"write -P {n} {offset} {length}")
    qemu_io(uri, *commands, "flush")
    qemu_io(uri, "read -P 2 1 1", "read -P 3 511 2", "read -P 1 513 3582", "read -P 4 4095 2", "read -P 5 4097 8190", "read -P 7 524288 1048576",
            "read -P 6 524287 1", "read -P 8 3145727 600001", "read -P 10 1073737000 4824", "read -P 0 2097152 4096", "read -P 1 2 509")


def test_zeroes_and_discards(uri):
    qemu_io(
        uri, "write -P 0xaa 0 8M", "write -z 1M 64k", "write -z -u 2M 1M", "discard 4M 1M", "write -z 12345 100", "discard 6000000 5000", "flush",
        "read -P 0xaa 0 12345", "read -P 0 12345 100", "read -P 0xaa 12445 1036131", "read -P 0 1M 64k", "read -P 0xaa 1114112 983040",
        "read -P 0 2M 1M", "read -P 0xaa 3M 1M", "read -P 0 4M 1M", "read -P 0xaa 5M 757120", "read -P 0xaa 6005000 2383608",
    )
    # And once more from the disk, not from a client's cache.
    qemu_io(uri, "read -P 0 2M 1M", "read -P 0 4M 1M", "read -P 0xaa 3M 1M")
    extents = json.loads(run("nbdinfo", "--map", "--json", uri).stdout)
    holes = [(e["offset"], e["length"]) for e in extents if e["type"] & 3]
    assert any(at <= 2 * MiB and at + length >= 3 * MiB for at, length in holes), extents
    assert any(at <= 4 * MiB and at + length >= 5 * MiB for at, length in holes), extents


def test_writing_zeroes_over_the_whole_volume_is_quick(uri):
    qemu_io(uri, "write -P 0xbb 0 16M")
    qemu_io(uri, "discard 0 1G", "read -P 0 0 16M")
    qemu_io(uri, "write -P 0xbb 0 16M", "write -z 0 1G", "read -P 0 0 16M")


def test_force_unit_access(uri):
    qemu_io(uri, "write -f -P 0x33 0 64k", "write -f -P 0x44 65537 1", "write -z -f 4096 4096", "read -P 0x33 0 4096", "read -P 0 4096 4096", "read -P 0x44 65537 1")


def test_qemu_img_converts_and_compares(uri, tmp_path):
    source = image(tmp_path, 20 * MiB, "convert")
    with open(source, "r+b") as file:
        file.truncate(GiB)
    run("qemu-img", "convert", "-n", *RAW, "-O", "raw", source, uri)
    assert "identical" in run("qemu-img", "compare", *RAW, "-F", "raw", source, uri).stdout
    run("qemu-img", "convert", *RAW, "-O", "qcow2", uri, tmp_path / "back.qcow2")
    assert "identical" in run("qemu-img", "compare", *RAW, "-F", "qcow2", source, tmp_path / "back.qcow2").stdout
    assert os.path.getsize(tmp_path / "back.qcow2") < 64 * MiB, "holes were copied as data"


@pytest.mark.parametrize(
    "job",
    [
        ("--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=32m"),
        ("--rw=randrw", "--bssplit=512/20:3k/20:4k/40:64k/20", "--blockalign=512", "--iodepth=16", "--size=24m", "--verify_backlog=256"),
        ("--rw=write", "--bs=1m", "--iodepth=4", "--size=128m"),
        ("--rw=randwrite", "--bs=8k", "--iodepth=8", "--size=16m", "--numjobs=4", "--offset_increment=64m"),
        ("--rw=randtrimwrite", "--bs=16k", "--iodepth=4", "--size=8m"),
    ],
    ids=["4k", "mixed", "sequential", "connections", "trim"],
)
def test_fio_verifies_every_block(uri, job, tmp_path):
    verify = () if "--rw=randtrimwrite" in job else ("--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--serialize_overlap=1")
    done = run("fio", "--name=v", "--ioengine=nbd", f"--uri={uri}", "--end_fsync=1", "--randseed=7", "--output-format=json", *verify, *job, cwd=tmp_path)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert all(j["error"] == 0 for j in report["jobs"])
    assert sum(j["write"]["total_ios"] for j in report["jobs"]) > 0
    if verify:
        assert sum(j["read"]["total_ios"] for j in report["jobs"]) > 0, "nothing was verified"


def test_a_volume_with_a_client_cannot_be_deleted(server, ec2, refused, tcp):
    volume = server.volume()
    client = subprocess.Popen(
        ["qemu-io", *RAW, server.uri(volume, tcp)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=clean_env(),
    )
    try:
        client.stdin.write("write -P 1 0 4096\n")
        client.stdin.flush()
        while "ops" not in client.stdout.readline():
            pass
        refused("VolumeInUse", 400, ec2.delete_volume, VolumeId=volume)
        assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "in-use"
        assert server.metric("sealgate_nbd_connections") >= 1
    finally:
        client.communicate("quit\n", timeout=20)
    for _ in range(50):
        if server.metric("sealgate_nbd_connections") == 0:
            break
    ec2.delete_volume(VolumeId=volume)


def test_a_disabled_key_attaches_no_volume(server, kms, tcp):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    volume = server.volume(KmsKeyId=key)
    qemu_io(server.uri(volume, tcp), "write -P 0x11 0 1M", "flush")
    kms.disable_key(KeyId=key)
    assert run("nbdinfo", "--size", server.uri(volume, tcp), check=False).returncode != 0
    kms.enable_key(KeyId=key)
    qemu_io(server.uri(volume, tcp), "read -P 0x11 0 1M")


def listed(server, tcp):
    listing = f"nbd://127.0.0.1:{server.nbd_port}" if tcp else f"nbd+unix:///?socket={server.nbd_socket}"
    return {e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", listing).stdout)["exports"]}


def why_not(uri):
    """What a client that cannot attach is told; nbdinfo does not show it, QEMU does."""
    done = run("qemu-io", "-f", "raw", uri, "-c", "length", check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_volume_whose_key_is_disabled_is_not_listed_and_hides_no_other(server, kms, tcp):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    locked, free = server.volume(KmsKeyId=key), server.volume()
    assert {locked, free} <= listed(server, tcp)
    kms.disable_key(KeyId=key)
    now = listed(server, tcp)
    assert free in now and locked not in now
    assert "disabled" in why_not(server.uri(locked, tcp)), "the client is not told why"
    kms.enable_key(KeyId=key)
    assert locked in listed(server, tcp)


def test_a_second_volume_of_one_name_is_warned_of_and_refused_in_words(server, tcp):
    name = f"twin-{tcp}"
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": name}]}]
    first = server.volume(TagSpecifications=tags)
    second = server.volume(TagSpecifications=tags)
    warned = [line for line in server.log_text().splitlines() if "two volumes have one tag Name" in line]
    assert any(first in line and second in line for line in warned)
    assert "more than one volume is named" in why_not(server.uri(name, tcp))
    refused = [line for line in server.log_text().splitlines() if " refused " in line and name in line]
    assert refused, "a refused attach left no line"


def test_each_connection_is_an_attach_of_its_own(server, kms):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    volume = server.volume(KmsKeyId=key)

    def recorded(operation):
        records = [r for r in server.audit_records() if r["operation"] == operation and r.get("resource") == f"volume/{volume}"]
        return [r["outcome"] for r in records]

    client = subprocess.Popen(
        ["qemu-io", "-f", "raw", server.uri(volume)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_env()
    )
    try:
        client.stdin.write("write -P 1 0 4096\n")
        client.stdin.flush()
        while "ops" not in client.stdout.readline():
            pass
        assert recorded("AttachVolume") == ["Success"]
        run("qemu-io", "-f", "raw", server.uri(volume), "-c", "read -P 1 0 4096")
        assert recorded("AttachVolume") == ["Success"] * 2
        kms.disable_key(KeyId=key)
        done = run("qemu-io", "-f", "raw", server.uri(volume), "-c", "read 0 4096", check=False)
        assert done.returncode != 0 and "disabled" in done.stdout + done.stderr
        assert recorded("AttachVolume") == ["Success"] * 2 + ["InvalidKmsKey.InvalidState"]
        client.stdin.write("read -P 1 0 4096\n")
        client.stdin.flush()
        while "ops" not in client.stdout.readline():
            pass
    finally:
        client.communicate("quit\n", timeout=20)
    for _ in range(100):
        if recorded("DetachVolume") == ["Success"] * 2:
            break
        time.sleep(0.05)
    assert recorded("DetachVolume") == ["Success"] * 2


def test_two_volumes_and_two_sectors_never_look_alike(server, tmp_path):
    """The same plaintext everywhere: no 16-byte block of ciphertext may come twice."""
    block = b"same same but sealed" * 205
    data = block[:4096] * 64
    (tmp_path / "same").write_bytes(data)
    volumes = [server.volume(), server.volume()]
    for volume in volumes:
        run("nbdcopy", "--flush", tmp_path / "same", server.uri(volume))
    seen, sealed = set(), 0
    for volume in volumes:
        raw = sparse(server.data_dir / "volumes" / volume / "slots")
        for at in range(0, len(raw) - 15, 4096):
            piece = raw[at : at + 16]
            # The header of the slots comes twice, and owners of slots begin alike: neither is a sector.
            if any(piece) and not piece.startswith((b"SGVOLSLT", b"SGOE")):
                assert piece not in seen, f"{volume} at {at}"
                seen.add(piece)
                sealed += 1
    assert sealed >= 128, "the sectors were not found on disk"


def sparse(path):
    """The data extents of a sparse file, joined."""
    out, at = b"", 0
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            except OSError:
                break
            out += os.pread(file.fileno(), end - at, at)
            at = end
    return out


def test_a_plain_volume_is_plain_and_the_search_finds_it(own_server, tmp_path):
    """What the searches for plaintext would see if nothing were sealed."""
    server = own_server.start()
    volume = server.volume(Encrypted=False)
    source = image(tmp_path, 2 * MiB)
    run("nbdcopy", "--flush", source, server.uri(volume))
    server.stop()
    leaks = server.leaks()
    assert any("marker" in leak and volume in leak for leak in leaks), leaks
    server.start()
    run("nbdcopy", server.uri(volume), tmp_path / "back")
    run("cmp", "--bytes", 2 * MiB, source, tmp_path / "back")
    server.client("ec2").delete_volume(VolumeId=volume)
    server.stop()
    assert not server.leaks()


def test_several_clients_share_one_volume(server, uri, tmp_path):
    """CAN_MULTI_CONN: what one connection wrote and flushed, another reads."""
    for n in range(5):
        qemu_io(uri, f"write -P {n + 1} {n * 64 * KiB} 64k", "flush")
        done = run("qemu-io", "-r", *RAW, "-c", f"read -P {n + 1} {n * 64 * KiB} 64k", uri)
        assert "verification failed" not in done.stdout
