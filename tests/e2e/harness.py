"""Starts the built `sealgate` binary on a data directory of its own and looks at what it leaves there.

Nothing here knows the formats on disk: the tests speak to the binary as a user does, and read its
data directory only to look for what must not be in it.
"""

import base64
import configparser
import contextlib
import hashlib
import hmac
import http.client
import json
import mmap
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
SEALGATE = Path(os.environ.get("SEALGATE_BIN", ROOT / "target" / "release" / "sealgate"))
CACHE = ROOT / "tests" / ".cache"
VENV_BIN = CACHE / "venv" / "bin"
REGION = "us-east-1"
ACCOUNT = "123456789012"
READY_SECONDS = 20
STOP_SECONDS = 10

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

# Every plaintext that the suites store carries this every few hundred bytes, at shifting alignment.
MARKER = b"PLAINTEXT-that-must-not-be-on-disk"


def payload(size, seed=0):
    """`size` reproducible bytes, incompressible, with MARKER sown through them."""
    rng = random.Random(f"{seed}")
    body = bytearray(rng.randbytes(size))
    if size >= len(MARKER):
        for at in range(0, size - len(MARKER) + 1, 499 if size < 4 * MiB else 65_521):
            body[at : at + len(MARKER)] = MARKER
    return bytes(body)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


_ports = random.Random()


def free_port():
    """A loopback port below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    while True:
        port = _ports.randrange(20_000, 32_000)
        with socket.socket() as s:
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port


class StartError(Exception):
    pass


def clean_env(**more):
    """The environment less what would steer the AWS tools or Sealgate, with `more`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SEALGATE_", "RCLONE_"))}
    env["PATH"] = f"{SEALGATE.parent}:{VENV_BIN}:{env['PATH']}:/usr/sbin:/sbin"
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    env["AWS_PAGER"] = ""
    env.update({k: str(v) for k, v in more.items()})
    return env


def run(*argv, check=True, timeout=120, **kwargs):
    """Runs a command, output captured as text; what it printed is in the error when it fails."""
    kwargs.setdefault("env", clean_env())
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, capture_output=True, text=kwargs.pop("text", True), timeout=timeout, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Server:
    """One data directory and the process that serves it, if it runs."""

    running = []  # for the log of a failed test

    def __init__(self, base, config=None, **env):
        self.base = Path(base)
        self.base.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.base / "data"
        self.log_path = self.base / "log"
        self.extra_env = env
        self.aws_port, self.nbd_port, self.admin_port = free_port(), free_port(), free_port()
        self.process = None
        self.secrets = {}
        self.config_path = None
        if config is not None:
            self.config_path = self.base / "sealgate.toml"
            self.config_path.write_text(config)

    # ---- process

    def argv(self):
        argv = [str(SEALGATE), "serve", "--data-dir", str(self.data_dir)]
        argv += ["--aws-listen", f"127.0.0.1:{self.aws_port}", "--nbd-listen", f"127.0.0.1:{self.nbd_port}"]
        argv += ["--admin-listen", f"127.0.0.1:{self.admin_port}"]
        if self.config_path:
            argv += ["--config", str(self.config_path)]
        return argv

    def spawn(self, **how):
        """Starts the process and does not wait."""
        assert SEALGATE.exists(), f"{SEALGATE} is not built: cargo build --release"
        with open(self.log_path, "ab") as log:
            log.write(f"==== start at {datetime.now(timezone.utc).isoformat()}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_env(**self.extra_env), **how
            )

    def start(self):
        """Starts the process and waits until it says that it can serve."""
        self.spawn()
        until = time.monotonic() + READY_SECONDS
        while True:
            if self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise StartError(f"exit {code} before it was ready\n{self.log_tail()}")
            try:
                if self.admin("/readyz")[0] == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > until:
                self.kill()
                raise StartError(f"not ready within {READY_SECONDS} s\n{self.log_tail()}")
            time.sleep(0.02)
        Server.running.append(self)
        self._note_secrets()
        return self

    def stop(self):
        """SIGTERM; it must drain and exit 0 within ten seconds. The seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_SECONDS} s after SIGTERM\n{self.log_tail()}") from None
        self._gone()
        assert code == 0, f"exit {code} after SIGTERM\n{self.log_tail()}"
        return time.monotonic() - begun

    def kill(self):
        """SIGKILL: what a crash of the process looks like."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self._gone()

    def restart(self):
        self.stop()
        return self.start()

    def _gone(self):
        self.process = None
        if self in Server.running:
            Server.running.remove(self)

    @property
    def pid(self):
        return self.process.pid

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines=60):
        return "\n".join(self.log_text().splitlines()[-lines:])

    # ---- what a client needs

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.aws_port}"

    @property
    def credentials_path(self):
        return self.data_dir / "credentials"

    @property
    def credentials(self):
        """Access key id and secret of profile `default`."""
        return self.credentials_of("default")

    def credentials_of(self, profile):
        parser = configparser.ConfigParser()
        parser.read(self.credentials_path)
        profile = parser[profile]
        return profile["aws_access_key_id"], profile["aws_secret_access_key"]

    def client(self, service, region=REGION, profile="default", **config):
        """A boto3 client that tells the first error instead of trying again."""
        key, secret = self.credentials_of(profile)
        config.setdefault("retries", {"total_max_attempts": 1})
        config.setdefault("connect_timeout", 5)
        config.setdefault("read_timeout", 60)
        if service == "s3":
            config.setdefault("s3", {"addressing_style": "path"})
            config.setdefault("max_pool_connections", 20)
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(**config),
        )

    def aws_env(self, **more):
        """What `sealgate env` exports, set by hand."""
        return clean_env(
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_SHARED_CREDENTIALS_FILE=self.credentials_path,
            AWS_PROFILE="default",
            AWS_DEFAULT_REGION=REGION,
            AWS_CONFIG_FILE=self.base / "aws-config",
            AWS_MAX_ATTEMPTS=1,
            **more,
        )

    def aws(self, *argv, check=True, **kwargs):
        """The AWS CLI; its JSON answer, parsed, where it gives one."""
        done = run(VENV_BIN / "aws", *argv, env=self.aws_env(), check=check, **kwargs)
        if not check:
            return done
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout

    def sealgate(self, *argv, **kwargs):
        """A command of the binary against this data directory."""
        return run(SEALGATE, "--data-dir", self.data_dir, *argv, **kwargs)

    def admin(self, path):
        """Status and text of the admin port's answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError as error:
            raise OSError(str(error)) from error

    def metric(self, name, **labels):
        """Sum of a metric's series that have these labels."""
        total = 0.0
        for found, have, value in parse_metrics(self.admin("/metrics")[1]):
            if found == name and all(have.get(k) == v for k, v in labels.items()):
                total += value
        return total

    def audit_records(self):
        """Every record of the audit log, in order of file name and line."""
        records = []
        for path in sorted((self.data_dir / "audit").rglob("*")):
            if path.is_file():
                for line in path.read_bytes().split(b"\n"):
                    line = line.strip(b"\0 \r")
                    if line.startswith(b"{"):
                        records.append(json.loads(line))
        return records

    # ---- NBD

    @property
    def nbd_socket(self):
        return self.data_dir / "nbd.sock"

    def uri(self, export, tcp=False):
        """The NBD URI of an export."""
        name = urllib.parse.quote(export)
        if tcp:
            return f"nbd://127.0.0.1:{self.nbd_port}/{name}"
        return f"nbd+unix:///{name}?socket={self.nbd_socket}"

    def volume(self, gib=1, **kwargs):
        """Creates a volume (sealed unless `Encrypted=False`); its id."""
        ec2 = self.client("ec2")
        kwargs.setdefault("Encrypted", True)
        with contextlib.nullcontext() if kwargs["Encrypted"] else self.plain_volumes():
            made = ec2.create_volume(Size=gib, AvailabilityZone=f"{REGION}a", VolumeType="gp3", **kwargs)
        return made["VolumeId"]

    @contextlib.contextmanager
    def plain_volumes(self):
        """Meanwhile a volume can be made that is not encrypted."""
        ec2 = self.client("ec2")
        ec2.disable_ebs_encryption_by_default()
        yield
        ec2.enable_ebs_encryption_by_default()

    # ---- what must not be there

    def secret(self, name, data):
        """Remembers plaintext (bytes) that must never be found below the data directory or in the log."""
        self.secrets[name] = bytes(data)

    def _note_secrets(self):
        self.secret("access key secret", self.credentials[1].encode())
        root = (self.data_dir / "root.key").read_bytes().strip()
        self.secret("root key file", root)
        words = re.findall(rb"[A-Za-z0-9+/=]{40,}", root)
        if words:
            self.secret("root key text", max(words, key=len))
        self.secret("root key tail", root[-32:])

    def leaks(self):
        """Where a marker or a secret is found in clear: in any file below the data directory, or the log."""
        needles = {"marker": MARKER}
        for name, data in self.secrets.items():
            needles[name] = data
            needles[f"{name} (hex)"] = data.hex().encode()
            needles[f"{name} (base64)"] = base64.b64encode(data).rstrip(b"=")[:-1]
        home = {"access key secret": self.credentials_path, "root key": self.data_dir / "root.key"}
        found = []
        for path in [*sorted(self.data_dir.rglob("*")), self.log_path]:
            if not path.is_file():
                continue
            here = {k: v for k, v in needles.items() if not any(k.startswith(s) and path == p for s, p in home.items())}
            found += [f"{name} in {path.relative_to(self.base)} at {at}" for name, at in scan(path, here)]
        return found

    def assert_no_leaks(self):
        found = self.leaks()
        assert not found, "plaintext on disk: " + "; ".join(found[:20])


def scan(path, needles):
    """Name and offset of each needle in a file, its holes skipped."""
    found = []
    size = path.stat().st_size
    if size == 0:
        return found
    longest = max(len(n) for n in needles.values())
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            except OSError:
                break  # only a hole is left
            # A needle may begin in the extent before; a hole is zeros, and no needle holds a page of them.
            begin = max(0, at - longest)
            for name, needle in needles.items():
                hit = view.find(needle, begin, end)
                if hit >= 0:
                    found.append((name, hit))
            at = end
    return found


def parse_metrics(text):
    """(name, labels, value) of each sample in the Prometheus text format."""
    for line in text.splitlines():
        match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
        if match and not line.startswith("#"):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            yield match[1], labels, float(match[3])


def tree(path, leave_out=()):
    """What is below a directory: kind, mode and digest by name. To tell whether anything changed."""
    found = {}
    for each in sorted(Path(path).rglob("*")):
        name = str(each.relative_to(path))
        if name in leave_out:
            continue
        mode = each.lstat().st_mode
        found[name] = (oct(mode), sha256(each.read_bytes()) if each.is_file() else None)
    return found


# ---- requests that no stock client would send -----------------------------------------------------


def signing_key(secret, date, region, service):
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


class Signed:
    """A request signed by hand (Signature Version 4), so that a test can bend any part of it."""

    def __init__(self, server, method, path, query=(), headers=(), body=b"", service="s3", region=REGION,
                 skew=timedelta(0), payload_hash=None, secret=None, unsigned=()):
        key_id, real_secret = server.credentials
        self.server, self.method, self.body = server, method, body
        now = datetime.now(timezone.utc) + skew
        self.stamp = now.strftime("%Y%m%dT%H%M%SZ")
        date = self.stamp[:8]
        self.scope = f"{date}/{region}/{service}/aws4_request"
        self.key = signing_key(secret or real_secret, date, region, service)
        quoted = urllib.parse.quote(path, safe="/-_.~")
        pairs = sorted((urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~")) for k, v in query)
        canonical_query = "&".join(f"{k}={v}" for k, v in pairs)
        self.target = quoted + (f"?{canonical_query}" if pairs else "")
        payload_hash = payload_hash or sha256(body)
        self.headers = {
            "host": f"127.0.0.1:{server.aws_port}",
            "x-amz-date": self.stamp,
            "x-amz-content-sha256": payload_hash,
            **{k.lower(): v for k, v in dict(headers).items()},
        }
        names = sorted(n for n in self.headers if n not in unsigned)
        canonical = "\n".join(
            [method, quoted, canonical_query, *(f"{n}:{self.headers[n].strip()}" for n in names), "", ";".join(names), payload_hash]
        )
        self.signature = self._sign("AWS4-HMAC-SHA256", sha256(canonical.encode()))
        self.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={key_id}/{self.scope}, SignedHeaders={';'.join(names)}, Signature={self.signature}"
        )

    def _sign(self, algorithm, *lines):
        text = "\n".join([algorithm, self.stamp, self.scope, *lines])
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def chunk(self, previous, data):
        """One chunk of an aws-chunked body and its signature, which the next one needs."""
        signature = self._sign("AWS4-HMAC-SHA256-PAYLOAD", previous, sha256(b""), sha256(data))
        return b"%x;chunk-signature=%s\r\n%s\r\n" % (len(data), signature.encode(), data), signature

    def send(self, body=None, length=None, **headers):
        """Sends it, perhaps with another body, length or headers than were signed; status, headers, body."""
        body = self.body if body is None else body
        connection = http.client.HTTPConnection("127.0.0.1", self.server.aws_port, timeout=20)
        try:
            connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
            for name, value in {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
                connection.putheader(name, value)
            if "transfer-encoding" not in self.headers:
                connection.putheader("content-length", str(len(body) if length is None else length))
            # A server that refuses early may close while we still send: its answer counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(body or None)
            if length is not None and length > len(body):
                connection.sock.shutdown(socket.SHUT_WR)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


def presign(server, path, age=timedelta(0), expires=60, method="GET"):
    """A presigned URL of S3 that was made `age` ago."""
    key_id, secret = server.credentials
    stamp = (datetime.now(timezone.utc) - age).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    query = "&".join(
        f"{name}={urllib.parse.quote(str(value), safe='-_.~')}"
        for name, value in sorted({
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{key_id}/{scope}", "X-Amz-Date": stamp,
            "X-Amz-Expires": expires, "X-Amz-SignedHeaders": "host",
        }.items())
    )
    quoted = urllib.parse.quote(path, safe="/-_.~")
    host = f"127.0.0.1:{server.aws_port}"
    canonical = f"{method}\n{quoted}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{sha256(canonical.encode())}"
    signature = hmac.new(signing_key(secret, stamp[:8], REGION, "s3"), text.encode(), hashlib.sha256).hexdigest()
    return f"http://{host}{quoted}?{query}&X-Amz-Signature={signature}"


def streaming(server, path, data, chunk_len=64 * KiB, break_at=None, final=True, declared=None, headers=()):
    """A PUT with STREAMING-AWS4-HMAC-SHA256-PAYLOAD, perhaps broken; status, headers, body."""
    request = Signed(
        server, "PUT", path,
        headers={"content-encoding": "aws-chunked",
                 "x-amz-decoded-content-length": str(len(data) if declared is None else declared), **dict(headers)},
        payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    )
    body, signature = b"", request.signature
    for index, at in enumerate(range(0, len(data), chunk_len)):
        piece, signature = request.chunk(signature, data[at : at + chunk_len])
        if index == break_at:
            piece = piece[:-3] + bytes([piece[-3] ^ 1]) + piece[-2:]
        body += piece
    if final:
        body += request.chunk(signature, b"")[0]
    return request.send(body)


def http_get(url, method="GET", body=None, headers=()):
    """A plain request to a presigned URL; status, headers by lower-case name, body."""
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()
