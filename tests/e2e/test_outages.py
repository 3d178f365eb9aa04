"""What clients that stay need of a server that goes and comes back: the service manager's part, and the cache epoch.

That a mounted device outlives all of it is tried in a guest, by tests/vm.
"""

import fcntl
import json
import os
import socket
import threading

import pytest

from harness import Server, StartError
from nbd_client import Nbd


def epoch(server, volume, path=None):
    """The volume's cache epoch, as the server tells it who attaches."""
    client = Nbd(path or server.nbd_socket, volume)
    assert client.description.startswith("sealgate:epoch="), client.description
    return client.description.removeprefix("sealgate:epoch=")


def test_an_epoch_lasts_over_a_stop_and_a_kill(own_server):
    server = own_server.start()
    volume = server.volume()
    first = epoch(server, volume)
    assert len(first) == 32 and int(first, 16)
    server.restart()
    assert epoch(server, volume) == first
    # Attached and written to when the process is killed.
    client = Nbd(server.nbd_socket, volume)
    client.write(0, b"x" * 4096)
    server.kill()
    server.start()
    assert epoch(server, volume) == first
    assert epoch(server, server.volume()) != first, "each volume has its own"


@pytest.mark.parametrize("how", ["another boot", "failed", "lost", "damaged"])
def test_an_epoch_ends_where_answers_may_be_lost(own_server, how):
    server = own_server.start()
    volume = server.volume()
    client = Nbd(server.nbd_socket, volume)
    first = client.description
    client.write(0, b"x" * 4096)
    server.kill()
    file = server.data_dir / "volumes" / volume / "epoch"
    kept = bytearray(file.read_bytes())
    if how == "another boot":
        kept[48:64] = bytes(range(16))
        kept[64:68] = crc32c(kept[:64]).to_bytes(4, "little")
        file.write_bytes(kept)
    elif how == "failed":
        (file.parent / "failed").touch(0o600)
    elif how == "lost":
        file.unlink()
    else:
        kept[40] ^= 1
        file.write_bytes(kept)
    server.start()
    second = epoch(server, volume)
    assert f"sealgate:epoch={second}" != first
    # Detached cleanly, it lasts over another boot.
    server.stop()
    kept = bytearray(file.read_bytes())
    assert kept[10:12] == b"\x01\x00" and not any(kept[48:64])
    server.start()
    assert epoch(server, volume) == second


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_service_manager_is_told_when_the_server_serves_and_when_it_stops(tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        server = Server(tmp_path / "server", NOTIFY_SOCKET=str(path))
        server.spawn()
        assert manager.recv(100) == b"READY=1"
        # Ready is who serves now, not soon.
        assert server.admin("/readyz")[0] == 200
        server.stop()
        assert manager.recv(100) == b"STOPPING=1"


class Managed(Server):
    """A server that is handed its sockets, as systemd would."""

    def __init__(self, base, **sockets):
        names = [name.replace("_", "-") for name in sockets]
        super().__init__(base, LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
        self.sockets = list(sockets.values())

    def spawn(self):
        # Above those that they will have, so that none is overwritten before it is moved.
        high = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 50) for s in self.sockets]

        def hand_over():
            for at, fd in enumerate(high):
                os.dup2(fd, 3 + at)

        try:
            super().spawn(close_fds=False, preexec_fn=hand_over)
        finally:
            for fd in high:
                os.close(fd)


def tcp():
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def test_who_connects_between_two_processes_waits_and_is_served(tmp_path):
    path = tmp_path / "handed.sock"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen(16)
    (aws, aws_port), (admin, admin_port), (nbd_tcp, nbd_port) = tcp(), tcp(), tcp()
    server = Managed(tmp_path / "server", nbd=unix, aws=aws, admin=admin, nbd_tcp=nbd_tcp)
    server.aws_port, server.admin_port, server.nbd_port = aws_port, admin_port, nbd_port
    with unix, aws, admin, nbd_tcp:
        server.start()
        volume = server.volume()
        first = epoch(server, volume, path)
        assert json.loads((server.data_dir / "runtime.json").read_text())["nbd_unix"] == str(path)
        assert not server.nbd_socket.exists(), "the socket in the data directory is not made besides"
        Nbd(path, volume).write(0, b"kept" * 1024)
        server.stop()
        assert path.exists(), "the socket is the manager's"

        found = []
        waiting = threading.Thread(target=lambda: found.append(Nbd(path, volume)))
        waiting.start()
        server.start()
        waiting.join(20)
        assert found and found[0].description == f"sealgate:epoch={first}"
        assert found[0].read(0, 4096) == b"kept" * 1024
        with socket.create_connection(("127.0.0.1", nbd_port), 20) as client:
            assert client.recv(8) == b"NBDMAGIC"
        server.stop()
    server.assert_no_leaks()


def test_sockets_that_might_not_be_configured_are_refused(tmp_path):
    wide = socket.create_server(("0.0.0.0", 0))
    with wide, pytest.raises(StartError, match="TLS"):
        Managed(tmp_path / "wide", nbd_tcp=wide).start()
    other, _ = tcp()
    with other, pytest.raises(StartError, match="FileDescriptorName="):
        Managed(tmp_path / "other", http=other).start()


def test_the_device_commands_say_what_is_missing(own_server):
    server = own_server.start()
    volume = server.volume()
    done = server.sealgate("attach", "no-such-volume", "--wait", "0", check=False)
    assert done.returncode == 1
    # Whatever this machine lacks: the module, the right, or just the volume.
    assert any(says in done.stderr for says in ("modprobe nbd", "CAP_SYS_ADMIN", "no such export")), done.stderr
    assert json.loads(server.sealgate("attached", "--output", "json").stdout) == []
    for wrong in (["attach", volume, "/dev/sda"], ["attach", volume, "--connections", "17"], ["attach", volume, "--block-size", "100"]):
        done = server.sealgate(*wrong, check=False)
        assert done.returncode == 2, wrong
