"""Objects through the stock command lines: the AWS CLI, rclone and s3cmd."""

import filecmp
import json
import os

import pytest

from harness import VENV_BIN, KiB, MiB, http_get, payload, run, sha256


def grow(folder):
    """A tree of files of many sizes and awkward names."""
    for n, name in enumerate(["a", "b.txt", "sub/c", "sub/deep/er/d", "with space", "ümläut", "plus+and&", "empty", "sub/big"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload({"empty": 0, "sub/big": 18 * MiB}.get(name, 1 + n * 20_011), n))
    return folder


def assert_same_tree(left, right):
    def names(top):
        return sorted(os.path.relpath(os.path.join(d, f), top) for d, _, files in os.walk(top) for f in files)

    assert names(left) == names(right)
    for name in names(left):
        assert filecmp.cmp(left / name, right / name, shallow=False), name


# ---- AWS CLI ----------------------------------------------------------------------------------------


def test_aws_copies_syncs_and_lists(server, tmp_path):
    aws = server.aws
    source = grow(tmp_path / "source")
    aws("s3", "mb", "s3://aws-cli")
    aws("s3", "sync", "--only-show-errors", source, "s3://aws-cli/tree")
    listed = aws("s3", "ls", "--recursive", "--summarize", "s3://aws-cli/tree")
    assert "Total Objects: 9" in listed and "ümläut" in listed
    aws("s3", "sync", "--only-show-errors", "s3://aws-cli/tree", tmp_path / "back")
    assert_same_tree(source, tmp_path / "back")
    assert aws("s3", "sync", source, "s3://aws-cli/tree").strip() == "", "sizes and dates are as uploaded"
    aws("s3", "mv", "--only-show-errors", "s3://aws-cli/tree/a", "s3://aws-cli/moved")
    aws("s3", "cp", "--only-show-errors", "s3://aws-cli/moved", tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == (source / "a").read_bytes()
    aws("s3", "rm", "--only-show-errors", "--recursive", "s3://aws-cli/")
    aws("s3", "rb", "s3://aws-cli")
    assert "aws-cli" not in aws("s3", "ls")


def test_aws_moves_a_hundred_mebibytes(server, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(payload(100 * MiB, "cli"))
    server.aws("s3", "mb", "s3://aws-big")
    server.aws("s3", "cp", "--only-show-errors", big, "s3://aws-big/big")
    head = server.aws("s3api", "head-object", "--bucket", "aws-big", "--key", "big")
    assert head["ContentLength"] == 100 * MiB and head["ServerSideEncryption"] == "AES256"
    server.aws("s3", "cp", "--only-show-errors", "s3://aws-big/big", tmp_path / "back")
    assert filecmp.cmp(big, tmp_path / "back", shallow=False)
    out = tmp_path / "range"
    server.aws("s3api", "get-object", "--bucket", "aws-big", "--key", "big", "--range", "bytes=8388600-8388700", out)
    with open(big, "rb") as file:
        assert out.read_bytes() == os.pread(file.fileno(), 101, 8388600)


def test_aws_streams_from_and_to_a_pipe(server):
    server.aws("s3", "mb", "s3://aws-pipe")
    body = payload(9 * MiB + 3, "pipe")
    run(VENV_BIN / "aws", "s3", "cp", "-", "s3://aws-pipe/k", env=server.aws_env(), input=body, text=False)
    assert run(VENV_BIN / "aws", "s3", "cp", "s3://aws-pipe/k", "-", env=server.aws_env(), text=False).stdout == body


def test_aws_encrypts_in_every_mode(server, tmp_path):
    aws = server.aws
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(payload(200 * KiB, "modes"))
    aws("s3", "mb", "s3://aws-modes")
    key = aws("kms", "create-key")["KeyMetadata"]["Arn"]
    secret = os.urandom(32)
    server.secret("SSE-C key for the CLI", secret)
    (tmp_path / "key").write_bytes(secret)
    customer = ("--sse-c", "AES256", "--sse-c-key", f"fileb://{tmp_path / 'key'}")
    modes = {"aes": ("--sse",), "kms": ("--sse", "aws:kms", "--sse-kms-key-id", key), "customer": customer}
    for name, options in modes.items():
        aws("s3", "cp", "--only-show-errors", source, f"s3://aws-modes/{name}", *options)
        aws("s3", "cp", "--only-show-errors", f"s3://aws-modes/{name}", back, *(customer if name == "customer" else ()))
        assert back.read_bytes() == source.read_bytes(), name
    assert aws("s3api", "head-object", "--bucket", "aws-modes", "--key", "kms")["SSEKMSKeyId"] == key
    assert aws("s3api", "get-object", "--bucket", "aws-modes", "--key", "customer", back, check=False).returncode != 0
    rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}, "BucketKeyEnabled": True}]}
    aws("s3api", "put-bucket-encryption", "--bucket", "aws-modes", "--server-side-encryption-configuration", json.dumps(rule))
    answer = aws("s3api", "get-bucket-encryption", "--bucket", "aws-modes")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert answer["BucketKeyEnabled"] is True
    aws("s3", "cp", "--only-show-errors", source, "s3://aws-modes/by-default")
    assert aws("s3api", "head-object", "--bucket", "aws-modes", "--key", "by-default")["BucketKeyEnabled"] is True


def test_aws_presigns(server, tmp_path):
    # Without this the CLI still presigns with Signature Version 2, which is refused here.
    (server.base / "aws-config").write_text("[default]\ns3 =\n    signature_version = s3v4\n")
    server.aws("s3", "mb", "s3://aws-presign")
    (tmp_path / "f").write_bytes(b"presigned")
    server.aws("s3", "cp", "--only-show-errors", tmp_path / "f", "s3://aws-presign/f")
    url = server.aws("s3", "presign", "s3://aws-presign/f", "--expires-in", "60").strip()
    assert http_get(url)[2] == b"presigned"


# ---- rclone -----------------------------------------------------------------------------------------


@pytest.fixture
def rclone(server, tmp_path):
    key, secret = server.credentials

    def call(*argv, **kwargs):
        env = server.aws_env(
            RCLONE_CONFIG=tmp_path / "rclone.conf", RCLONE_CONFIG_GATE_TYPE="s3", RCLONE_CONFIG_GATE_PROVIDER="Other",
            RCLONE_CONFIG_GATE_ACCESS_KEY_ID=key, RCLONE_CONFIG_GATE_SECRET_ACCESS_KEY=secret, RCLONE_CONFIG_GATE_ENDPOINT=server.endpoint,
            RCLONE_CONFIG_GATE_REGION="us-east-1", RCLONE_CONFIG_GATE_CHUNK_SIZE="5M", RCLONE_CONFIG_GATE_UPLOAD_CUTOFF="5M",
            RCLONE_CONFIG_GATE_FORCE_PATH_STYLE="true",
        )
        (tmp_path / "rclone.conf").touch()
        return run("rclone", "--retries=1", "--low-level-retries=1", *argv, env=env, **kwargs)

    return call


def test_rclone_syncs_checks_and_comes_back(rclone, tmp_path):
    source = grow(tmp_path / "source")
    rclone("mkdir", "gate:rclone")
    rclone("sync", source, "gate:rclone/tree")
    rclone("check", "--download", source, "gate:rclone/tree")
    rclone("check", source, "gate:rclone/tree")
    listed = json.loads(rclone("lsjson", "-R", "--files-only", "gate:rclone/tree").stdout)
    assert {f["Path"]: f["Size"] for f in listed} == {
        str(p.relative_to(source)): p.stat().st_size for p in source.rglob("*") if p.is_file()
    }
    rclone("sync", "gate:rclone/tree", tmp_path / "back")
    assert_same_tree(source, tmp_path / "back")
    (source / "a").unlink()
    (source / "b.txt").write_bytes(b"changed")
    rclone("sync", source, "gate:rclone/tree")
    rclone("check", "--download", source, "gate:rclone/tree")
    rclone("purge", "gate:rclone")


def test_rclone_copies_within_the_server_and_streams(rclone, tmp_path):
    body = payload(11 * MiB, "rclone")
    (tmp_path / "f").write_bytes(body)
    rclone("copyto", tmp_path / "f", "gate:rclone-copy/f")
    rclone("copyto", "gate:rclone-copy/f", "gate:rclone-copy/g")
    rclone("copyto", "gate:rclone-copy/g", tmp_path / "g")
    assert sha256((tmp_path / "g").read_bytes()) == sha256(body)
    piece = rclone("cat", "--offset", "5242870", "--count", "20", "gate:rclone-copy/f", text=False).stdout
    assert piece == body[5242870:5242890]


# ---- s3cmd ------------------------------------------------------------------------------------------


@pytest.fixture
def s3cmd(server, tmp_path):
    key, secret = server.credentials
    host = f"127.0.0.1:{server.aws_port}"
    (tmp_path / "s3cfg").write_text(
        f"[default]\naccess_key = {key}\nsecret_key = {secret}\nhost_base = {host}\nhost_bucket = {host}\nuse_https = False\n"
        "bucket_location = us-east-1\nmultipart_chunk_size_mb = 5\nmax_retries = 1\n"
    )

    def call(*argv, check=True):
        return run("s3cmd", "-c", tmp_path / "s3cfg", "--no-progress", *argv, check=check).stdout

    return call


def test_s3cmd_puts_gets_syncs_and_deletes(s3cmd, tmp_path):
    source = grow(tmp_path / "source")
    s3cmd("mb", "s3://s3cmd")
    s3cmd("sync", f"{source}/", "s3://s3cmd/tree/")
    (tmp_path / "back").mkdir()
    s3cmd("sync", "s3://s3cmd/tree/", f"{tmp_path / 'back'}/")
    assert_same_tree(source, tmp_path / "back")
    assert len(s3cmd("ls", "-r", "s3://s3cmd/").splitlines()) == 9
    info = s3cmd("info", "s3://s3cmd/tree/a")
    assert "File size" in info
    s3cmd("cp", "s3://s3cmd/tree/a", "s3://s3cmd/copy")
    s3cmd("get", "--force", "s3://s3cmd/copy", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (source / "a").read_bytes()
    s3cmd("put", "--server-side-encryption", source / "a", "s3://s3cmd/sse")
    s3cmd("del", "-r", "--force", "s3://s3cmd/")
    s3cmd("rb", "s3://s3cmd")
    assert "s3cmd" not in s3cmd("ls")
