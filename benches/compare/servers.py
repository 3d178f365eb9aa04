"""What the comparisons have in common: starting and stopping servers, their CPU time, wrk."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
VENV = ROOT / "tests/.cache/venv/bin/python3"


def with_boto3():
    """Runs the script again with the tests' Python where this one has no boto3."""
    try:
        import boto3  # noqa: F401
    except ImportError:
        if VENV.exists() and pathlib.Path(sys.executable) != VENV:
            os.execv(VENV, [str(VENV), *sys.argv])
        sys.exit("boto3 is missing: run tests/run once, or pip install boto3")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(ready, process, what):
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"{what} ended with {process.returncode}")
        try:
            ready()
            return
        except OSError:
            time.sleep(0.1)
    process.kill()
    sys.exit(f"{what} does not answer")


def start_sealgate(binary, folder, processes):
    """The URL of its AWS endpoint, the access key, the secret key, and the process's number."""
    port, admin = free_port(), free_port()
    data = folder / f"data-{port}"
    with open(folder / f"log-{port}", "wb") as log:
        process = subprocess.Popen(
            [binary, "serve", "--data-dir", data, "--aws-listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}"],
            stdout=log, stderr=log,
        )
    processes.append(process)
    wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1).close(), process, "sealgate")
    found = dict(re.findall(r"^(aws_\w+)\s*=\s*(\S+)", (data / "credentials").read_text(), re.M))
    return f"http://127.0.0.1:{port}", found["aws_access_key_id"], found["aws_secret_access_key"], process.pid


def cpu(pid):
    if not pid:
        return float("nan")
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def duration_ms(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


def wrk(folder, url, lines, connections, seconds):
    """Requests a second and latencies of a script of these lines, which sends the same bytes each time."""
    script = folder / "wrk.lua"
    script.write_text("\n".join(lines))
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s", "-s", script, url],
        capture_output=True, text=True, check=True,
    ).stdout
    count = int(re.search(r"(\d+) requests in", out)[1])
    if "Non-2xx" in out or "Socket errors" in out or not count:
        sys.exit(f"{url} failed:\n{out}")
    quantile = lambda q: duration_ms(re.search(rf"^\s+{q}%\s+(\S+)", out, re.M)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    return {"rate": rate, "count": count, "p50": quantile(50), "p99": quantile(99)}


def below(folder, run):
    """What `run(folder, processes)` returns, in a temporary folder that is gone afterwards, as are the processes."""
    folder, processes = pathlib.Path(tempfile.mkdtemp(prefix="sealgate-bench-", dir=folder)), []
    try:
        return run(folder, processes)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder)
