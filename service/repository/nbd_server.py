"""Serves an image to this process with `qemu-nbd`: the service reads and writes images as QEMU does.

The socket is listening, and this process is connected to it, before the server starts. So nothing is polled, no other process can
connect, and the server ends with the last connection: also when this process is killed.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

import nbd

from service.repository.images import DIES_WITH_US, Image, last_line, secret_arguments
from service.repository.report import Report

_FOLDER_PREFIX = "stillpoint-nbd-"
LEFT_AFTER_S = 3600.0
"""Seconds after which the folder of a socket is one that a killed process has left. It is needed for a moment."""
#: systemd's way to hand over a socket. The number of the process is known in the process only, hence the shell.
_HAND_OVER = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null'


class ServerFailed(Exception):
    """The server did not open the image. `reason`: the last line that it wrote."""

    def __init__(self, image: Image, reason: str) -> None:
        self.image, self.reason = image, reason
        super().__init__(reason)


class NbdServer:
    """One image for `connections` threads. The server starts at once and is waited for in `connect`: start all, then connect to all."""

    def __init__(
        self,
        image: Image,
        *,
        connections: int,
        report: Report,
        is_writable: bool = False,
        bitmap: str | None = None,
    ) -> None:
        self.image = image
        self._handles: list[Any] = []
        self._last_line = ""
        listener, self._sockets = _connected(connections)
        secret, descriptors = secret_arguments(report)
        flags = [*([] if is_writable else ["--read-only"]), *(["-B", bitmap] if bitmap is not None else [])]
        command = ["qemu-nbd", *secret, "--shared", str(connections), *flags, "--discard=unmap", image.name()]
        try:
            self._process = subprocess.Popen(
                [*DIES_WITH_US, "sh", "-c", _HAND_OVER, "sh", *command],
                stdin=listener.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
            )
        finally:
            listener.close()
            for descriptor in descriptors:
                os.close(descriptor)

    def connect(self, contexts: Sequence[str] = ()) -> list[Any]:
        """The handles of libnbd. `contexts`: what `block_status` shall know. Raises ServerFailed."""
        try:
            while self._sockets:
                handle = nbd.NBD()
                handle.set_pread_initialize(False)
                for context in contexts:
                    handle.add_meta_context(context)
                handle.connect_socket(self._sockets.pop().detach())
                self._handles.append(handle)
        except nbd.Error as error:
            raise ServerFailed(self.image, self._ended() or error.string) from error
        return self._handles

    def close(self) -> None:
        """Raises ServerFailed if the server could not finish what was written. A second call does nothing."""
        if self._process.returncode is not None:
            return
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.shutdown()
        self._abandon()
        reason = self._ended()
        if self._process.returncode:
            raise ServerFailed(self.image, reason or f"qemu-nbd ended with {self._process.returncode}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        self._process.kill()
        self._handles.clear()
        self._abandon()
        self._ended()

    def _abandon(self) -> None:
        for unused in self._sockets:
            unused.close()
        self._sockets.clear()

    def _ended(self) -> str:
        """Wait for the end of the server. Returns the last line that it wrote."""
        if self._process.returncode is None:
            _, text = self._process.communicate()
            self._last_line = last_line(text.decode(errors="replace"))
        return self._last_line


def _connected(count: int) -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket without a name, and connections that wait there."""
    _remove_left_folders()
    with ExitStack() as stack:
        folder = stack.enter_context(_opened(stack.enter_context(tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX))))
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        # The name of a socket has at most 107 bytes (unix(7)), and the folder of temporary files may be far down.
        path = f"/proc/self/fd/{folder}/socket"
        listener.bind(path)
        listener.listen(count)
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
        for client in sockets:
            client.connect(path)
        return listener.dup(), sockets


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@cache
def _remove_left_folders() -> None:
    """Remove what processes of this user have left that were killed while they had such a folder. Once in a process."""
    before = time.time() - LEFT_AFTER_S
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_FOLDER_PREFIX) and _is_left(entry, before):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(entry: os.DirEntry[str], before: float) -> bool:
    with suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        return entry.is_dir(follow_symlinks=False) and status.st_uid == os.geteuid() and status.st_mtime < before
    return False
