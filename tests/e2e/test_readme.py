"""The README's tour, as written: its `serve` line runs, and so does every block marked `sh tour`."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from harness import READY_SECONDS, ROOT, STOP_SECONDS, clean_env, run

README = (ROOT / "README.md").read_text()
SERVE = "cargo run --release -- serve"


def tour():
    """The marked blocks, each `! command` made one that ends the shell where the command succeeds."""
    blocks = re.findall(r"^```sh tour\n(.*?)^```", README, re.M | re.S)
    assert blocks, "README.md has no block marked `sh tour`"
    return re.sub(r"^! (.+)$", r"if \1; then echo 'must not succeed: \1' >&2; exit 1; fi", "\n".join(blocks), flags=re.M)


@pytest.fixture
def workplace(tmp_path):
    """A folder like the clone's top, so that ./target and ./sealgate-data mean what the README means."""
    (tmp_path / "target").symlink_to(ROOT / "target")
    for port in (9000, 9100):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))  # the README's ports must be free here
    return tmp_path


def test_the_tour_runs_as_written(workplace):
    assert re.search(rf"^{re.escape(SERVE)}\b", README, re.M), "README.md does not start the server as expected"
    # The same command, told where the manifest is because the folder is another.
    command = SERVE.replace("cargo run", f"cargo run --quiet --manifest-path {ROOT}/Cargo.toml")
    environment = clean_env()
    with open(workplace / "serve.log", "wb") as log:
        serve = subprocess.Popen(command.split(), cwd=workplace, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + READY_SECONDS + 30
        while True:
            try:
                if urllib.request.urlopen("http://127.0.0.1:9100/readyz", timeout=5).status == 200:
                    break
            except OSError:
                assert serve.poll() is None and time.monotonic() < until, (workplace / "serve.log").read_text()
                time.sleep(0.05)
        done = subprocess.run(
            ["bash", "-O", "expand_aliases", "-eu", "-c", tour()], cwd=workplace, env=environment, capture_output=True, text=True, timeout=120
        )
        said = f"{done.stdout}\n{done.stderr}\n{(workplace / 'serve.log').read_text()}"
        assert done.returncode == 0, said
        assert "only for us" in done.stdout, said
        assert "sealgate_kms_requests_total" in done.stdout, said
    finally:
        # cargo replaces itself by the server, or is its parent: the group has both and nothing else.
        os.killpg(serve.pid, signal.SIGTERM)
        assert serve.wait(STOP_SECONDS) == 0
    printed = (workplace / "serve.log").read_text()
    for place in ("127.0.0.1:9000", "127.0.0.1:9100", "nbd.sock", "sealgate env"):
        assert place in printed, f"`serve` does not print {place}:\n{printed}"


def test_the_files_that_the_readme_names_are_there():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        if not path.startswith("http"):
            assert (ROOT / path).exists(), path
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert (ROOT / "CHANGELOG.md").exists()


def test_the_readme_s_second_command_is_this_suite():
    assert "tests/run " in README and os.access(ROOT / "tests" / "run", os.X_OK)
    assert run(ROOT / "tests" / "run", "--help").stdout
