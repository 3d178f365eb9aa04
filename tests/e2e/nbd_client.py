"""A small NBD client that knows exactly which request was answered, for the tests that kill the server.

The stock clients decide whether the protocol is spoken right; they do not tell what was acknowledged.
"""

import socket
import struct

READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1


class Refused(Exception):
    """The server answered a request with an error number."""


class Nbd:
    """One connection after NBD_OPT_GO; several requests may be under way (`send`, then `answer`)."""

    def __init__(self, path, export, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        magic, option_magic, flags = struct.unpack(">8s8sH", self._receive(18))
        assert (magic, option_magic) == (b"NBDMAGIC", b"IHAVEOPT") and flags & 1
        self.socket.sendall(struct.pack(">I", flags & 3))
        name = export.encode()
        # NBD_INFO_DESCRIPTION besides what is told in any case.
        data = struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, 2)
        self.description = None
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 7, len(data)) + data)
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._receive(20))
            body = self._receive(length)
            if kind == 1:
                break
            assert kind == 3, f"refused: {kind:#x} {body!r}"
            info = struct.unpack(">H", body[:2])[0]
            if info == 0:
                self.size, self.flags = struct.unpack(">QH", body[2:12])
            elif info == 2:
                self.description = body[2:].decode()
        self.handle = 0

    def _receive(self, length):
        out = bytearray()
        while len(out) < length:
            piece = self.socket.recv(length - len(out))
            if not piece:
                raise ConnectionError("the server hung up")
            out += piece
        return bytes(out)

    def send(self, command, offset=0, length=0, data=b"", flags=0):
        """Sends a request; its handle."""
        self.handle += 1
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, self.handle, offset, length or len(data)) + data)
        return self.handle

    def answer(self, read_length=0):
        """The handle of the next answer, and its data. `read_length` if the request under way is a read."""
        magic, error, handle = struct.unpack(">IIQ", self._receive(16))
        assert magic == 0x67446698, hex(magic)
        if error:
            raise Refused(error)
        return handle, self._receive(read_length)

    def read(self, offset, length):
        self.send(READ, offset, length)
        return self.answer(length)[1]

    def write(self, offset, data):
        self.send(WRITE, offset, data=data)
        self.answer()

    def close(self):
        try:
            self.send(DISC)
        except OSError:
            pass
        self.socket.close()
