"""A relay before libvirt's socket: it can be slow, silent, or gone, without touching the daemon or anybody else's guests."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.lab.daemon import uri

HEADER = struct.Struct(">IIIIiII")
"""libvirt's wire form: before each body the length, program, version, procedure, kind, serial number and status."""
REMOTE_PROGRAM = 0x20008086
SNAPSHOT_CREATE_XML = 185


class LibvirtRelay:
    """`uri` is what a client connects to. `delay_s` holds back every message from the client to libvirt.

    `snapshots_pass`: while it is cleared, a call that takes a snapshot is held back, with all that its client sends after
    it, until the client is dead; what other clients ask for passes. `holds_snapshot` is set when one is held back.

    `is_mute`: connections are accepted and nothing is passed on, either way, on those that were made before too.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "relay.sock"
        self.delay_s = 0.0
        self.is_mute = False
        self.snapshots_pass = threading.Event()
        self.snapshots_pass.set()
        self.holds_snapshot = threading.Event()
        self._muted: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"qemu+unix:///{'system' if uri().endswith('system') else 'session'}?socket={self.path}"

    def open(self) -> "LibvirtRelay":
        """libvirt is there (again)."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def wait_for_snapshot(self) -> None:
        """Until a call that takes a snapshot is held back: a job that freezes has frozen by then. Clear `snapshots_pass` before."""
        assert self.holds_snapshot.wait(60), "no snapshot was asked for within 60 s"

    def close(self) -> None:
        """libvirt goes away: new connections are refused and the open ones break."""
        if self._listener is not None:
            # Wakes accept(), which close() alone does not.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.path.unlink(missing_ok=True)
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _shut(end)

    def mute_open_ones(self) -> None:
        """The connections that are open now hang for ever; new ones work."""
        with self._lock:
            self._muted |= {end for pair in self._pairs for end in pair}

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(daemon_socket()))
            except OSError:  # there is no libvirt at this moment
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._copy, args=(client, server, _received(client), True), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self._answers(server), False), daemon=True).start()

    def _holds_back(self, data: bytes, client: socket.socket) -> bool:
        """Waits; whether it did."""
        if self.delay_s:
            time.sleep(self.delay_s)
            return True
        if self.snapshots_pass.is_set() or not _asks_for_a_snapshot(data):
            return False
        self.holds_snapshot.set()
        while not (self.snapshots_pass.wait(0.005) or _has_hung_up(client)):
            pass
        return True

    def _answers(self, server: socket.socket) -> Iterator[bytes]:
        """What libvirt says to one client; the end of it cuts the connection."""
        return _received(server)

    def _copy(self, source: socket.socket, target: socket.socket, pieces: Iterator[bytes], delayed: bool) -> None:
        try:
            for data in pieces:
                # A client that died meanwhile never asked: what it had sent is not passed on after its death.
                if delayed and self._holds_back(data, source) and _has_hung_up(source):
                    return
                if not (self.is_mute or source in self._muted):
                    target.sendall(data)
        except OSError:
            pass
        finally:
            _shut(source)
            _shut(target)


def _received(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(65536):
        yield data


def _has_hung_up(client: socket.socket) -> bool:
    """Also where the client's last words wait to be read, and where we hung up on it ourselves."""
    poll = select.poll()
    try:
        poll.register(client, select.POLLHUP)
    except ValueError:  # it was closed meanwhile
        return True
    return bool(poll.poll(0))


def _asks_for_a_snapshot(data: bytes) -> bool:
    """Whether one of the calls in it is virDomainSnapshotCreateXML. A client writes each call in one piece."""
    while len(data) >= HEADER.size:
        length, program, _version, procedure, kind, _serial, _status = HEADER.unpack_from(data)
        if (program, procedure, kind) == (REMOTE_PROGRAM, SNAPSHOT_CREATE_XML, 0):
            return True
        data = data[max(length, HEADER.size) :]
    return False


def daemon_socket() -> Path:
    """Where the lab's libvirt listens."""
    if uri().endswith("system"):
        return Path("/run/libvirt/libvirt-sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or str(Path.home() / ".cache")
    return Path(runtime) / "libvirt" / "libvirt-sock"


def _shut(end: socket.socket) -> None:
    # It may have broken before: that is what is wanted.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
