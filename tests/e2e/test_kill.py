"""kill -9 under load, fifty times: what was acknowledged is there, on volumes flushed or not.

Each cycle loads the server for a moment, kills it at a random time, starts it again and compares it with
a model of what may be there. The seed of a run is in every failure; SEALGATE_KILL_SEED repeats it (as far
as the machine's timing lets it), SEALGATE_KILL_CYCLES sets how many cycles each side has
(25; with SEALGATE_LONG, which `tests/run --long` sets, 200).
"""

import hashlib
import os
import random
import socket
import struct
import subprocess
import threading
import time

import botocore.exceptions
import pytest
import urllib3.exceptions

from harness import GiB, KiB, MARKER, MiB, Server, clean_env, payload, sha256
from nbd_client import FLUSH, FUA, TRIM, WRITE, WRITE_ZEROES, Nbd, Refused

CYCLES = int(os.environ.get("SEALGATE_KILL_CYCLES") or (200 if os.environ.get("SEALGATE_LONG") else 25))
SEED = int(os.environ.get("SEALGATE_KILL_SEED", str(int(time.time()))))
LOST = (
    botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError, urllib3.exceptions.HTTPError, ConnectionError, socket.timeout, OSError,
)


def load_until_killed(server, rng, workers, progress):
    """Runs each worker in a thread until its connection breaks, and kills the server meanwhile: at a random
    time after each of the counters that `progress` gives has moved, since a crash without load proves nothing."""
    before = progress()
    errors = []

    def guard(work):
        try:
            work()
        except LOST:
            pass
        except BaseException as error:  # noqa: BLE001 - told below, with the seed
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(w,)) for w in workers]
    for t in threads:
        t.start()
    until = time.monotonic() + 20
    while not errors and any(now <= then for now, then in zip(progress(), before, strict=True)):
        assert time.monotonic() < until, f"no load: {before} to {progress()} (seed {SEED})"
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.6))
    server.kill()
    for t in threads:
        t.join(60)
        assert not t.is_alive(), f"a client still waits for a killed server (seed {SEED})"
    if errors:
        raise AssertionError(f"seed {SEED}: {errors[0]!r}") from errors[0]


# ---- objects ----------------------------------------------------------------------------------------

GONE = None
SIZES = (0, 1, 100, 4 * KiB, 64 * KiB, 64 * KiB + 1, 300 * KiB, 1 * MiB, 3 * MiB)


class Objects:
    """One writer's keys: what was acknowledged, and what is under way, for each."""

    def __init__(self, server, bucket, name, kms_key, seed):
        self.server, self.bucket, self.name, self.kms_key = server, bucket, name, kms_key
        self.rng = random.Random(seed)
        self.acknowledged = {}  # key -> digest, or GONE
        self.under_way = {}  # key -> digest or GONE that may have happened or not
        self.count = 0
        self.done = 0

    def work(self):
        s3 = self.server.client("s3")
        while True:
            self.step(s3)

    def step(self, s3):
        rng, where = self.rng, dict(Bucket=self.bucket)
        self.count += 1
        key = f"{self.name}/{rng.randrange(25)}"
        kind = rng.choices(("put", "kms", "delete", "multipart", "copy", "broken"), (10, 4, 2, 1, 2, 1))[0]
        if kind == "delete":
            self.change(key, GONE, lambda: s3.delete_object(**where, Key=key))
        elif kind == "copy":
            sources = [k for k, v in self.acknowledged.items() if v is not GONE and k not in self.under_way]
            if sources:
                source = rng.choice(sources)
                self.change(
                    key, self.acknowledged[source],
                    lambda: s3.copy_object(**where, Key=key, CopySource={**where, "Key": source}, MetadataDirective="REPLACE"),
                )
        elif kind == "multipart":
            parts = [payload(5 * MiB, f"{self.name}{self.count}"), payload(rng.randrange(1, 200_000), self.count)]
            upload = dict(where, Key=key, UploadId=s3.create_multipart_upload(**where, Key=key)["UploadId"])
            etags = [s3.upload_part(**upload, PartNumber=n, Body=p)["ETag"] for n, p in enumerate(parts, 1)]
            listed = {"Parts": [{"PartNumber": n, "ETag": e} for n, e in enumerate(etags, 1)]}
            self.change(key, sha256(b"".join(parts)), lambda: s3.complete_multipart_upload(**upload, MultipartUpload=listed))
        elif kind == "broken":
            with pytest.raises(botocore.exceptions.ClientError):
                s3.put_object(**where, Key=key, Body=b"must not be there", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
        else:
            body = payload(rng.choice(SIZES) + rng.randrange(3), f"{self.name}{self.count}")
            how = dict(ServerSideEncryption="aws:kms", SSEKMSKeyId=self.kms_key, BucketKeyEnabled=rng.random() < 0.5) if kind == "kms" else {}
            self.change(key, sha256(body), lambda: s3.put_object(**where, Key=key, Body=body, **how))

    def change(self, key, digest, call):
        self.under_way[key] = digest
        call()
        self.acknowledged[key] = digest
        del self.under_way[key]
        self.done += 1

    def verify(self, s3, keys=None):
        """What is there must be what was acknowledged, or what was under way when the server died."""
        listed = {
            o["Key"]: o["Size"]
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.name}/")
            for o in page.get("Contents", [])
        }
        for key in keys or {*self.acknowledged, *self.under_way, *listed}:
            may = {self.acknowledged.get(key, GONE)}
            if key in self.under_way:
                may.add(self.under_way[key])
            try:
                body = s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                found, size = sha256(body), len(body)
            except s3.exceptions.NoSuchKey:
                found, size = GONE, None
            assert found in may, f"seed {SEED}: {key} is {found}, and may be {may}"
            assert listed.get(key) == size, f"seed {SEED}: {key} is listed with {listed.get(key)} bytes and has {size}"
            self.acknowledged[key] = found
            self.under_way.pop(key, None)


def test_acknowledged_objects_outlive_kill_nine(tmp_path):
    rng = random.Random(f"objects {SEED}")
    server = Server(tmp_path).start()
    server.client("s3").create_bucket(Bucket="kill")
    kms_key = server.client("kms").create_key()["KeyMetadata"]["Arn"]
    writers = [Objects(server, "kill", f"w{n}", kms_key, f"{SEED} {n}") for n in range(4)]
    for cycle in range(CYCLES):
        load_until_killed(server, rng, [w.work for w in writers], lambda: [w.done for w in writers])
        server.start()
        s3 = server.client("s3")
        last = cycle == CYCLES - 1
        for writer in writers:
            # Every object of one writer, and of the others what the crash may have caught; all of them at the end.
            mine = last or writers[cycle % len(writers)] is writer
            writer.verify(s3, None if mine else list(writer.under_way))
    assert server.stop() < 10
    server.start()
    for writer in writers:
        writer.verify(server.client("s3"))
    assert sum(w.count for w in writers) > 10 * CYCLES, "too little load to mean anything"
    server.stop()
    server.assert_no_leaks()


# ---- volumes ----------------------------------------------------------------------------------------

BLOCK = 4096
FRESH = 0


def block(number, version):
    """The content of a block in a version. FRESH, and the negative ones that TRIM and WRITE_ZEROES make, are zeros."""
    if version <= FRESH:
        return bytes(BLOCK)
    head = struct.pack(">QQ", number, version) + MARKER
    return head + hashlib.shake_128(head).digest(BLOCK - len(head))


class Blocks:
    """One writer's blocks: the version that was answered, and those under way that may be there instead."""

    def __init__(self, first, count, seed):
        self.first, self.count = first, count
        self.rng = random.Random(seed)
        self.there = dict.fromkeys(range(first, first + count), FRESH)
        self.since = {}  # block -> versions sent since, in order, not answered
        self.version = 0
        self.requests = 0

    def work(self, path, export):
        nbd = Nbd(path, export)
        under_way = {}
        while True:
            while len(under_way) < 8:
                numbers, version, request = self.choose({n for numbers, _ in under_way.values() for n in numbers})
                for n in numbers:
                    self.since.setdefault(n, []).append(version)
                under_way[nbd.send(**request)] = (numbers, version)
            numbers, version = under_way.pop(nbd.answer()[0])
            self.requests += 1
            for n in numbers:
                self.answered(n, version)

    def choose(self, busy):
        """A request on blocks that no other request of ours is on."""
        rng = self.rng
        while True:
            length = rng.choices((1, 2, 8, 32, 200), (8, 4, 4, 2, 1))[0]
            at = rng.randrange(self.first, self.first + self.count - length)
            numbers = range(at, at + length)
            if not busy.intersection(numbers):
                break
        fua = rng.random() < 0.15
        where = dict(offset=at * BLOCK, flags=FUA if fua else 0)
        kind = rng.choices((WRITE, WRITE_ZEROES, TRIM), (12, 1, 1))[0]
        self.version += 1
        if kind != WRITE:
            # Trimmed blocks read as zeros: the protocol leaves it open, this server promises it.
            return numbers, -self.version, dict(where, command=kind, length=length * BLOCK)
        data = b"".join(block(n, self.version) for n in numbers)
        return numbers, self.version, dict(where, command=WRITE, data=data)

    def answered(self, number, version):
        """`version` is there now, and nothing older may come back: a killed process loses nothing that it answered."""
        self.there[number] = version
        versions = self.since.get(number, [])
        while versions and versions.pop(0) != version:
            pass

    def verify(self, nbd):
        for at in range(self.first, self.first + self.count, 256):
            count = min(256, self.first + self.count - at)
            data = nbd.read(at * BLOCK, count * BLOCK)
            for n in range(at, at + count):
                have = data[(n - at) * BLOCK : (n - at + 1) * BLOCK]
                may = {self.there[n], *self.since.get(n, ())}
                number, version = struct.unpack(">QQ", have[:16])
                if not any(have):
                    version = next((v for v in may if v <= FRESH), FRESH)
                right = version in may and have == block(n, version)
                assert right, (
                    f"seed {SEED}: block {n} may be of versions {sorted(may)}, has {have[:48].hex()} "
                    f"({'whole' if have == block(number, version) else 'torn or foreign'}, block {number}, version {version})"
                )
                self.there[n] = version
        self.since.clear()


@pytest.mark.parametrize("encrypted", [True, False], ids=["sealed", "plain"])
def test_answered_blocks_outlive_kill_nine(tmp_path, encrypted):
    cycles = CYCLES if encrypted else max(1, CYCLES // 5)
    rng = random.Random(f"blocks {SEED} {encrypted}")
    server = Server(tmp_path).start()
    volume = server.volume(Encrypted=encrypted)
    # Blocks in several slots, some at the slots' edges and at the volume's end.
    writers = [Blocks(100, 900, f"{SEED} a"), Blocks(5_000, 700, f"{SEED} b"), Blocks(GiB // BLOCK - 500, 500, f"{SEED} c")]
    flushes = 0

    def flush():
        """From a connection of its own."""
        nonlocal flushes
        nbd = Nbd(server.nbd_socket, volume)
        while True:
            time.sleep(rng.uniform(0.005, 0.05))
            nbd.send(FLUSH)
            nbd.answer()
            flushes += 1

    for _ in range(cycles):
        load_until_killed(
            server, rng, [flush, *(lambda w=w: w.work(server.nbd_socket, volume) for w in writers)], lambda: [flushes, *(w.requests for w in writers)]
        )
        server.start()
        nbd = Nbd(server.nbd_socket, volume)
        for writer in writers:
            writer.verify(nbd)
        nbd.close()
    server.stop()
    if encrypted:
        server.assert_no_leaks()


def test_both_sides_and_the_keyring_at_once(tmp_path):
    """A few cycles with objects, blocks and keys together: none holds up another's recovery."""
    rng = random.Random(f"both {SEED}")
    server = Server(tmp_path).start()
    server.client("s3").create_bucket(Bucket="kill")
    kms_key = server.client("kms").create_key()["KeyMetadata"]["Arn"]
    volume = server.volume(KmsKeyId=kms_key)
    objects, blocks = Objects(server, "kill", "w", kms_key, f"{SEED} o"), Blocks(0, 500, f"{SEED} b")
    keys = {}

    def make_keys():
        kms = server.client("kms")
        while True:
            key = kms.create_key()["KeyMetadata"]["KeyId"]
            keys[key] = kms.encrypt(KeyId=key, Plaintext=key.encode())["CiphertextBlob"]

    for _ in range(max(1, CYCLES // 5)):
        load_until_killed(
            server, rng, [objects.work, lambda: blocks.work(server.nbd_socket, volume), make_keys],
            lambda: [objects.done, blocks.requests, len(keys)],
        )
        server.start()
        objects.verify(server.client("s3"))
        nbd = Nbd(server.nbd_socket, volume)
        blocks.verify(nbd)
        nbd.close()
        kms = server.client("kms")
        for key, blob in keys.items():
            assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == key.encode(), f"seed {SEED}"
    server.stop()
    server.assert_no_leaks()


class QemuIo:
    """qemu-io on an export, given one command after another; it is killed, so that it flushes nothing at its end."""

    def __init__(self, uri):
        argv = ["qemu-io", "-t", "writeback", "-f", "raw", uri]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(), text=True)

    def write(self, offset, length, byte):
        """Writes, and returns when the server has answered."""
        self.process.stdin.write(f"write -P {byte} {offset} {length}\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            assert line and "failed" not in line, line
            if f"wrote {length}/{length} bytes at offset {offset}" in line:
                return

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_what_a_stock_client_wrote_and_never_flushed_outlives_kill_nine(tmp_path):
    """Twenty cycles of writes into chunks that are new, and over what they have just written, with no flush at all."""
    rng = random.Random(f"unflushed {SEED}")
    server = Server(tmp_path).start()
    volume = server.volume()
    expected = {}  # block -> byte
    for cycle in range(20):
        client = QemuIo(server.uri(volume))
        for n in range(24):
            length = rng.choice((1, 1, 3, 16, 200))
            # Chunks that no cycle before has met, and now and then blocks that are there.
            at = rng.choice(sorted(expected)) if n % 4 == 3 else cycle * 12_800 + rng.randrange(12_000)
            byte = rng.randrange(1, 256)
            client.write(at * BLOCK, length * BLOCK, byte)
            expected.update(dict.fromkeys(range(at, at + length), byte))
        server.kill()
        client.kill()
        server.start()
        nbd = Nbd(server.nbd_socket, volume)
        for number, byte in expected.items():
            found = nbd.read(number * BLOCK, BLOCK)
            assert found == bytes([byte]) * BLOCK, f"seed {SEED}, cycle {cycle}: block {number} has {found[:16].hex()}, not {byte:#x}"
        nbd.close()
    server.stop()


def test_the_model_notices_what_was_lost():
    """The model itself: an old version where a newer one was answered is an error, and so is a torn block."""
    blocks = Blocks(0, 4, 0)
    blocks.since[1] = [1, 2, 3]
    blocks.answered(1, 2)

    class Disk:
        def __init__(self, content):
            self.content = content

        def read(self, offset, length):
            assert (offset, length) == (0, 4 * BLOCK)
            return bytes(BLOCK) + self.content + bytes(2 * BLOCK)

    torn = block(1, 3)[:2048] + block(1, 2)[2048:]
    for wrong in (block(1, 1), bytes(BLOCK), block(2, 3), torn):
        with pytest.raises(AssertionError):
            blocks.verify(Disk(wrong))
    blocks.verify(Disk(block(1, 3)))
    with pytest.raises(AssertionError):
        blocks.verify(Disk(block(1, 2)))


def test_refusals_are_not_taken_for_a_crash():
    assert not issubclass(Refused, LOST)
