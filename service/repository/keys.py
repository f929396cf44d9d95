"""The key of an encrypted repository, by reference. The key itself stands in no database, log, argument or file of the service."""

import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service import bounded_io
from service.errors import HostOutOfDescriptors, KeyUnusable, StorageNotAnswering
from service.model.key_reference import COMMAND, FILE, check_program, words_of

MAX_KEY_BYTES = 8192
"""Bytes of a key. A longer one is refused: the reference then names something else."""
PATIENCE_S = 10.0
"""Seconds to read a key or to run its command. After that the command is killed, and the key cannot be used."""
_programs: frozenset[str] = frozenset()
"""Paths of the programs that a reference which came over the API may start, as the service's own user."""


def allow(programs: Iterable[str]) -> None:
    """Let references name these programs, by their absolute paths. Until then they may name none."""
    global _programs  # noqa: PLW0603 - a setting of the process, like the level of its log
    _programs = frozenset(programs)


def _is_allowed(program: str) -> bool:
    return program in _programs


@dataclass(frozen=True)
class Key:
    """`reference`: `file:/path`, or `command:program arguments`, whose output is the key. Raises KeyUnusable for another form.

    `is_operators`: the reference comes from a person at this machine and not over the API, so any program may be started.
    """

    reference: str
    is_operators: bool = False

    def __post_init__(self) -> None:
        if self.reference.startswith(FILE):
            if not Path(self.reference.removeprefix(FILE)).is_absolute():
                raise self._unusable("the path after file: is not absolute")
        elif self.reference.startswith(COMMAND):
            words_of(self.reference)
        else:
            raise self._unusable("it begins neither with file: nor with command:")

    def read(self) -> bytes:
        """The key, without one newline at its end. Raises KeyUnusable, HostOutOfDescriptors."""
        try:
            content = self._from_file() if self.reference.startswith(FILE) else self._from_command()
        except OSError as error:
            if error.errno in bounded_io.NO_DESCRIPTORS:
                raise HostOutOfDescriptors(what="reading the key of a repository", reason=bounded_io.reason_of(error)) from error
            raise self._unusable(bounded_io.reason_of(error)) from error
        if len(content) > MAX_KEY_BYTES:
            raise self._unusable(f"it is longer than {MAX_KEY_BYTES} bytes")
        return self._checked(content.removesuffix(b"\n"))

    def _checked(self, key: bytes) -> bytes:
        # QEMU takes a passphrase as a C string in UTF-8: what follows a NUL would not count.
        if not key:
            raise self._unusable("it is empty")
        if b"\0" in key:
            raise self._unusable("it contains a NUL byte")
        with suppress(UnicodeDecodeError):
            key.decode()
            return key
        raise self._unusable("it is not UTF-8; a key of random bytes can be written in base64")

    def _from_file(self) -> bytes:
        path = Path(self.reference.removeprefix(FILE))
        try:
            return bounded_io.call("reading the key", path, lambda: _start_of(path), PATIENCE_S)
        except StorageNotAnswering as hung:
            raise self._unusable(f"{path} does not answer") from hung
        except _NotAFileError as error:
            raise self._unusable(f"{path} is not a regular file") from error

    def _from_command(self) -> bytes:
        if not self.is_operators and not _is_allowed(words_of(self.reference)[0]):
            check_program(self.reference, _programs)
        # Its messages are dropped: nobody knows what a foreign program writes there.
        process = subprocess.Popen(
            words_of(self.reference),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            content, status = _output(process)
        finally:
            # Also the programs that it started, before the id of its group could belong to others.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.close()
            process.wait()
        if status is None and len(content) <= MAX_KEY_BYTES:
            raise self._unusable(f"the command did not end within {PATIENCE_S:.0f} s")
        if status:
            raise self._unusable(f"the command ended with exit status {status}")
        return content

    def _unusable(self, reason: str) -> KeyUnusable:
        return KeyUnusable(key=self.reference, reason=reason)


class _NotAFileError(Exception):
    pass


def _start_of(path: Path) -> bytes:
    # A FIFO without a writer would block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _NotAFileError
        return file.read(MAX_KEY_BYTES + 1)


def _output(process: subprocess.Popen[bytes]) -> tuple[bytes, int | None]:
    """What it wrote, and its exit status. None: it runs, because the time is over or it wrote too much."""
    assert process.stdout is not None
    until, content = time.monotonic() + PATIENCE_S, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(content) <= MAX_KEY_BYTES:
            if not selector.select(max(0.0, until - time.monotonic())):
                return content, None
            piece = os.read(process.stdout.fileno(), MAX_KEY_BYTES + 1)
            if not piece:
                break
            content += piece
    if len(content) > MAX_KEY_BYTES:
        return content, None
    # waitid leaves the process as it is, so that its group can still be killed.
    while not (ended := os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
        if time.monotonic() > until:
            return content, None
        time.sleep(0.01)
    return content, ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status
