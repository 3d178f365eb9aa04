"""A full disk: clear errors, nothing that was acknowledged is lost, deleting helps, and no key is used without its record."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import botocore.exceptions
import pytest

from harness import KiB, MiB, Server, StartError, payload, run

SIZE_MIB = 256


@pytest.fixture
def small():
    """A folder on a file system of 256 MiB."""
    if os.geteuid() != 0:
        pytest.fail("this test mounts a small tmpfs and needs root: run tests/run as root")
    folder = Path(tempfile.mkdtemp(prefix="sealgate-full-"))
    run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", "-l", folder)
        folder.rmdir()


@pytest.fixture
def server(tmp_path, small):
    server = Server(tmp_path)
    server.data_dir = small / "data"
    server.base = small
    yield server.start()
    server.kill()


def free(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def fill(folder, name="filler"):
    """Takes every byte that is left, from outside."""
    path = folder / name
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (MiB, 4 * KiB):
            with contextlib.suppress(OSError):
                while file.write(b"\xee" * size):
                    pass
    return path


def fill_for_good(folder):
    """The same, until what Sealgate holds in reserve is taken too: it gives that up a step at a time."""
    fillers, empty = [], 0
    while empty < 4:
        fillers.append(fill(folder, f"filler{len(fillers)}"))
        empty = empty + 1 if fillers[-1].stat().st_size == 0 else 0
        time.sleep(0.3)
    return fillers


def eventually(call, seconds=15):
    """The answer of a call that may be refused for a moment."""
    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except botocore.exceptions.ClientError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def put_until_full(s3, bodies, size):
    """Stores objects until one is refused; that refusal."""
    for n in range(2 * SIZE_MIB * MiB // size):
        key, body = f"k{len(bodies)}", payload(size, f"full {len(bodies)}")
        try:
            s3.put_object(Bucket="full", Key=key, Body=body)
        except botocore.exceptions.ClientError as error:
            return error.response
        bodies[key] = body
    raise AssertionError("the disk never got full")


def check_objects(s3, bodies):
    assert [o["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket="full") for o in p.get("Contents", [])] == sorted(bodies)
    for key, body in bodies.items():
        assert s3.get_object(Bucket="full", Key=key)["Body"].read() == body, key


def test_objects_and_blocks_on_a_full_disk(server, small):
    s3, kms = server.client("s3"), server.client("kms")
    s3.create_bucket(Bucket="full")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"before")["CiphertextBlob"]
    volume = server.volume(KmsKeyId=key)
    run("qemu-io", "-f", "raw", "-c", "write -P 0x21 0 8M", "-c", "flush", server.uri(volume))
    bodies = {}
    for size in (5 * MiB, 30 * KiB):
        refusal = put_until_full(s3, bodies, size)
        assert refusal["ResponseMetadata"]["HTTPStatusCode"] in (500, 503, 507), refusal
        assert refusal["Error"]["Code"] and refusal["Error"]["Message"], refusal
    assert len(bodies) >= 10

    # The block side fills what the object side keeps in reserve, and says what is wrong.
    done = run("qemu-io", "-f", "raw", *(w for n in range(16, 240, 4) for w in ("-c", f"write -P 0x22 {n}M 4M")), server.uri(volume), check=False)
    assert "No space left on device" in done.stdout + done.stderr, done.stdout[-500:] + done.stderr[-500:]

    # What was there stays readable, and the server stays up.
    assert server.admin("/healthz")[0] == 200
    check_objects(s3, bodies)
    done = run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x21 0 8M", server.uri(volume))
    assert "verification failed" not in done.stdout
    # Zeroes and discards need no room to speak of; what is discarded is free again.
    run("qemu-io", "-f", "raw", "-c", "discard 16M 224M", "-c", "flush", server.uri(volume))

    # Deleting makes room.
    for name in list(bodies)[:6]:
        s3.delete_object(Bucket="full", Key=name)
        del bodies[name]
    bodies["after"] = payload(5 * MiB, "after")
    for last in (False,) * 20 + (True,):
        # Files of deleted objects go in the background.
        try:
            s3.put_object(Bucket="full", Key="after", Body=bodies["after"])
            break
        except botocore.exceptions.ClientError:
            if last:
                raise
            time.sleep(0.5)
    check_objects(s3, bodies)

    server.restart()
    s3, kms = server.client("s3"), server.client("kms")
    check_objects(s3, bodies)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"before"
    done = run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x21 0 8M", "-c", "read -P 0 16M 224M", server.uri(volume))
    assert "verification failed" not in done.stdout
    server.stop()
    server.assert_no_leaks()


def test_keys_are_used_while_the_disk_is_full_and_after_that(server, small):
    kms, s3 = server.client("kms"), server.client("s3")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="k", Body=b"kept", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    filler = fill(small)
    # Within a tenth of a second a step of what is held in reserve is given up; until then keys may be refused.
    until = time.monotonic() + 15
    while not free(small):
        assert time.monotonic() < until, "nothing is given up"
        time.sleep(0.02)
    eventually(lambda: kms.encrypt(KeyId=key, Plaintext=b"first"))
    for n in range(50):
        blob = kms.encrypt(KeyId=key, Plaintext=b"%d" % n)["CiphertextBlob"]
        assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"%d" % n
        assert s3.get_object(Bucket="full", Key="k")["Body"].read() == b"kept"
    kms.disable_key(KeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        s3.put_object(Bucket="full", Key="more", Body=b"x" * MiB)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    filler.unlink()
    s3.put_object(Bucket="full", Key="more", Body=b"x" * MiB)
    kms.create_key()
    server.stop()
    server.assert_no_leaks()


def test_no_key_is_used_without_its_record(server, small):
    kms, s3 = server.client("kms"), server.client("s3")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"before")["CiphertextBlob"]
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="k", Body=b"kept", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    fillers = fill_for_good(small)
    assert free(small) == 0
    blobs, refusal = [], None
    # The log has some room allocated ahead; long records use it up soon.
    context = {"pad": "x" * 7000}
    for n in range(1000):
        try:
            blobs.append(kms.encrypt(KeyId=key, Plaintext=b"%d" % n, EncryptionContext=context)["CiphertextBlob"])
        except botocore.exceptions.ClientError as error:
            refusal = error.response
            break
    assert refusal, "keys are used although the audit log cannot grow"
    assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 500 and refusal["Error"]["Code"] == "KMSInternalException", refusal
    refused = [
        lambda: kms.decrypt(CiphertextBlob=sealed), lambda: kms.generate_data_key(KeyId=key, KeySpec="AES_256"), kms.create_key,
        lambda: s3.get_object(Bucket="full", Key="k"),
    ]
    for call in refused:
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
    assert server.admin("/healthz")[0] == 200
    records = [r for r in server.audit_records() if r["operation"] == "Encrypt" and r["outcome"] == "Success"]
    assert len(records) >= len(blobs), "a use was answered that has no record"

    # Room again: all is as before, at once and after a start.
    for filler in fillers:
        filler.unlink()
    assert eventually(lambda: kms.decrypt(CiphertextBlob=sealed))["Plaintext"] == b"before"
    assert eventually(lambda: s3.get_object(Bucket="full", Key="k"))["Body"].read() == b"kept"
    eventually(kms.create_key)
    server.kill()
    server.start()
    kms, s3 = server.client("kms"), server.client("s3")
    assert [kms.decrypt(CiphertextBlob=b, EncryptionContext=context)["Plaintext"] for b in blobs] == [b"%d" % n for n in range(len(blobs))]
    assert s3.get_object(Bucket="full", Key="k")["Body"].read() == b"kept"
    server.stop()
    server.assert_no_leaks()


def test_a_start_on_a_full_disk_loses_nothing(server, small):
    s3 = server.client("s3")
    s3.create_bucket(Bucket="full")
    bodies = {f"k{n}": payload(n * 20_000, n) for n in range(12)}
    for name, body in bodies.items():
        s3.put_object(Bucket="full", Key=name, Body=body)
    server.kill()
    filler = fill(small)
    assert free(small) == 0
    # What was held in reserve is enough to start, and to use keys.
    server.start()
    check_objects(server.client("s3"), bodies)
    kms = server.client("kms")
    blob = kms.encrypt(KeyId=kms.create_key()["KeyMetadata"]["KeyId"], Plaintext=b"full")["CiphertextBlob"]
    server.kill()
    server.start()
    assert server.client("kms").decrypt(CiphertextBlob=blob)["Plaintext"] == b"full"
    server.kill()

    # Without a reserve it may be too little. Then it is said where, and what to do; and nothing is lost.
    (server.data_dir / "reserve").unlink()
    more = fill(small, "more")
    try:
        server.start()
        server.kill()
    except StartError:
        assert f"the disk that holds {server.data_dir.resolve()} is full" in server.log_text()
        assert "free space there and start again" in server.log_text()
    assert "panicked" not in server.log_text()
    filler.unlink()
    more.unlink()
    server.start()
    check_objects(server.client("s3"), bodies)
    assert server.client("kms").decrypt(CiphertextBlob=blob)["Plaintext"] == b"full"
