"""Real input: a SQLite database in use and this repository's own tree, through each side and back bit for bit."""

import contextlib
import filecmp
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from harness import CACHE, MARKER, MiB, ROOT, clean_env, run, sha256


def fill(path, rows=20_000, first=0):
    """A database with an index and a few MB of rows."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS ledger (id INTEGER PRIMARY KEY, account TEXT, amount INTEGER, memo BLOB)")
        db.execute("CREATE INDEX IF NOT EXISTS by_account ON ledger (account)")
        db.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?, ?)",
            ((n, f"account-{n % 997}", n * 7919 % 100_003, MARKER + sha256(str(n).encode()).encode() * 2) for n in range(first, first + rows)),
        )


def check(path, rows):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*), sum(amount) FROM ledger").fetchone() == (rows, sum(n * 7919 % 100_003 for n in range(rows)))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("database") / "ledger.sqlite"
    fill(path)
    assert path.stat().st_size > 4 * MiB
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The repository's tracked files as they are now, or all but what is built where there is no git."""
    top = tmp_path_factory.mktemp("tree") / "sealgate"
    if (ROOT / ".git").exists():
        names = run("git", "-C", ROOT, "ls-files", "-z").stdout.split("\0")
    else:
        skip = {"target", "sealgate-data", str(CACHE.relative_to(ROOT))}
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not any(str(p.relative_to(ROOT)).startswith(s) for s in skip)]
    for name in names:
        source = ROOT / name
        if name and source.is_file():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, top / name)
    assert (top / "Cargo.toml").exists()
    return top


def same(left, right):
    done = subprocess.run(["diff", "-r", left, right], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:2000]


# ---- objects ----------------------------------------------------------------------------------------


def test_a_database_through_objects(server, s3, kms, database, tmp_path):
    s3.create_bucket(Bucket="database")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    s3.upload_file(str(database), "database", "ledger", ExtraArgs={"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key})
    back = tmp_path / "back.sqlite"
    s3.download_file("database", "ledger", str(back))
    assert filecmp.cmp(database, back, shallow=False)
    check(back, 20_000)


def test_this_repository_through_objects(server, s3, tree, tmp_path):
    archive = tmp_path / "tree.tar"
    run("tar", "-C", tree, "-cf", archive, ".")
    s3.create_bucket(Bucket="repository")
    s3.upload_file(str(archive), "repository", "tree.tar")
    s3.download_file("repository", "tree.tar", str(tmp_path / "back.tar"))
    assert filecmp.cmp(archive, tmp_path / "back.tar", shallow=False)
    (tmp_path / "unpacked").mkdir()
    run("tar", "-C", tmp_path / "unpacked", "-xf", tmp_path / "back.tar")
    same(tree, tmp_path / "unpacked")


def test_this_repository_file_by_file(server, tree, tmp_path):
    server.aws("s3", "mb", "s3://files")
    key, secret = server.credentials
    env = server.aws_env(
        RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_GATE_TYPE="s3", RCLONE_CONFIG_GATE_PROVIDER="Other", RCLONE_CONFIG_GATE_ENDPOINT=server.endpoint,
        RCLONE_CONFIG_GATE_ACCESS_KEY_ID=key, RCLONE_CONFIG_GATE_SECRET_ACCESS_KEY=secret, RCLONE_CONFIG_GATE_REGION="us-east-1",
    )
    run("rclone", "sync", tree, "gate:files/tree", env=env)
    run("rclone", "check", "--download", tree, "gate:files/tree", env=env)
    run("rclone", "sync", "gate:files/tree", tmp_path / "back", env=env)
    same(tree, tmp_path / "back")


# ---- volumes ----------------------------------------------------------------------------------------


def test_a_database_through_a_volume(server, database, tmp_path):
    uri = server.uri(server.volume())
    run("nbdcopy", "--flush", database, uri)
    server.restart()
    back = tmp_path / "back.sqlite"
    run("nbdcopy", uri, back)
    os.truncate(back, database.stat().st_size)
    assert filecmp.cmp(database, back, shallow=False)
    check(back, 20_000)


def test_this_repository_in_a_file_system_on_a_volume(server, tree, tmp_path):
    """Made outside, copied in, killed, copied out, checked: needs no kernel client and no root."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(256 * MiB)
    run("mkfs.ext4", "-q", "-F", "-d", tree, image)
    uri = server.uri(server.volume())
    run("nbdcopy", "--flush", "--connections=2", image, uri)
    server.kill()
    server.start()
    back = tmp_path / "back"
    run("nbdcopy", uri, back)
    os.truncate(back, 256 * MiB)
    assert filecmp.cmp(image, back, shallow=False)
    run("e2fsck", "-f", "-n", back)
    (tmp_path / "out").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'out'}", back)
    (tmp_path / "out" / "lost+found").rmdir()
    same(tree, tmp_path / "out")


def can_mount():
    return os.geteuid() == 0 and Path("/dev/fuse").exists() and Path("/dev/loop-control").exists()


@contextlib.contextmanager
def mounted(uri, folder):
    """The volume's ext4 file system, mounted through nbdfuse and a loop device, until the block ends."""
    disk = folder / "disk"
    disk.touch()
    fuse = subprocess.Popen(["nbdfuse", str(disk), uri], env=clean_env(), stdin=subprocess.DEVNULL)
    loop = None
    point = folder / "mnt"
    point.mkdir(exist_ok=True)
    try:
        for _ in range(200):
            if disk.stat().st_size > 0:
                break
            time.sleep(0.05)
        loop = run("losetup", "-f", "--show", disk).stdout.strip()
        if run("blkid", loop, check=False).returncode != 0:
            run("mkfs.ext4", "-q", "-F", loop)
        run("mount", "-o", "discard", loop, point)
        yield point
        run("umount", point)
        run("e2fsck", "-f", "-n", loop)
    finally:
        run("umount", "-l", point, check=False)
        if loop:
            run("losetup", "-d", loop, check=False)
        run("fusermount3", "-u", "-z", disk, check=False)
        fuse.wait(30)


def test_a_database_in_use_on_a_mounted_volume(server, tree, tmp_path):
    if not can_mount():
        pytest.fail("this test mounts a volume and needs root, /dev/fuse and loop devices")
    uri = server.uri(server.volume())
    with mounted(uri, tmp_path) as point:
        fill(point / "ledger.sqlite", 10_000)
        shutil.copytree(tree, point / "tree")
        fill(point / "ledger.sqlite", 10_000, first=10_000)
        check(point / "ledger.sqlite", 20_000)
    server.restart()
    with mounted(uri, tmp_path) as point:
        check(point / "ledger.sqlite", 20_000)
        same(tree, point / "tree")
        shutil.rmtree(point / "tree")
        run("fstrim", "-v", point)
        fill(point / "ledger.sqlite", 1_000, first=20_000)
    with mounted(uri, tmp_path) as point:
        check(point / "ledger.sqlite", 21_000)
