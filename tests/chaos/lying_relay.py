"""A libvirt that takes a snapshot and then says that it did not, or says nothing any more."""

import socket
import struct
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

from tests.libvirt_relay import HEADER, REMOTE_PROGRAM, SNAPSHOT_CREATE_XML, LibvirtRelay

_REPLY = 1
_STATUS_ERROR = 1
_MESSAGE = b"internal error: unable to execute QEMU command 'transaction': the lie of a test"


class Lie(StrEnum):
    CUT = "cut"
    ERROR = "error"


class LyingRelay(LibvirtRelay):
    """`lie` is told about the next snapshot that was really taken, once; `on_lie` is called when it was."""

    def __init__(self, folder: Path, on_lie: Callable[[str], None]) -> None:
        super().__init__(folder)
        self.lie: Lie | None = None
        self._on_lie = on_lie

    def _answers(self, server: socket.socket) -> Iterator[bytes]:
        for packet in _packets(super()._answers(server)):
            if self.lie is None or not _says_snapshot_was_taken(packet):
                yield packet
                continue
            lie, self.lie = self.lie, None
            self._on_lie(f"the snapshot was taken; the lie is: {lie}")
            if lie is Lie.CUT:
                return
            yield _as_error(packet)


def _packets(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        while len(held) >= 4 and len(held) >= (length := int.from_bytes(held[:4], "big")):
            yield held[:length]
            held = held[length:]


def _says_snapshot_was_taken(packet: bytes) -> bool:
    _length, program, _version, procedure, kind, _serial, status = HEADER.unpack_from(packet)
    return (program, procedure, kind, status) == (REMOTE_PROGRAM, SNAPSHOT_CREATE_XML, _REPLY, 0)


def _as_error(packet: bytes) -> bytes:
    _length, program, version, procedure, kind, serial, _status = HEADER.unpack_from(packet)
    body = _remote_error(_MESSAGE)
    return HEADER.pack(HEADER.size + len(body), program, version, procedure, kind, serial, _STATUS_ERROR) + body


def _remote_error(message: bytes) -> bytes:
    """`remote_error` of libvirt's remote_protocol.x: VIR_ERR_INTERNAL_ERROR of VIR_FROM_QEMU; what is optional is left out."""
    text = struct.pack(">II", 1, len(message)) + message + bytes(-len(message) % 4)
    domain = strings = network = struct.pack(">I", 0)
    return struct.pack(">ii", 1, 10) + text + struct.pack(">i", 2) + domain + 3 * strings + struct.pack(">ii", -1, -1) + network
