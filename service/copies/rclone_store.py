"""A copy at anything that rclone reaches. rclone is a child process: its configuration, with its passwords, is a file in memory."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from service.copies.objects import PIECE_BYTES, Lock, Source, SourceDiffers, StoredObject
from service.errors import CopyNotAnswering, CopyRefused, CopyToolMissing, LockNotOffered
from service.model.copy_target import RcloneTarget
from service.repository.images import DIES_WITH_US
from service.repository.report import Report

NO_FILE, NO_FOLDER = 4, 3
"""Exit codes of rclone: the file, or the folder, is not there."""
MAY_PASS = frozenset({5, 8})
"""Exit codes of rclone after errors that may pass: one that it tried again in vain, and a limit of transfers."""
LOOK_S = 0.5
"""Seconds between two signs of life while rclone works."""
QUIET = ("--quiet", "--use-json-log", "--contimeout=15s", "--timeout=60s", "--low-level-retries=4", "--retries=2", "--ask-password=false")


class RcloneStore:
    """`configuration`: the text of an rclone.conf that the key of the copy names; None: rclone finds its own."""

    def __init__(self, target: RcloneTarget, configuration: bytes | None, report: Report) -> None:
        self.shown = str(target)
        self._root = target.remote
        self._report = report
        self._program = program_of(self.shown)
        self._configuration: int | None = None
        if configuration is not None:
            self._configuration = os.memfd_create("rclone.conf", os.MFD_CLOEXEC)
            os.write(self._configuration, configuration)

    def put(self, name: str, source: Source, lock: Lock | None = None) -> str | None:
        if lock is not None:
            raise self._no_lock()
        try:
            self._sent(name, source)
        except SourceDiffers:
            # Some remotes write in place, so that a part of the object is there.
            self.delete(name)
            raise
        return None

    def _sent(self, name: str, source: Source) -> None:
        with self._running(["rcat", "--size", str(source.size), self._place(name)], f"sending {name}") as process:
            assert process.stdin is not None
            try:
                for piece in source.pieces():
                    process.stdin.write(piece)
            except BrokenPipeError:
                # It has ended, and its exit code says why.
                raise
            except BaseException:
                # With its input closed rclone would complete the object.
                process.kill()
                raise
            self._end_of_input(process)

    def head(self, name: str, version: str | None = None) -> StoredObject | None:  # noqa: ARG002 - rclone names no versions
        try:
            listed = json.loads(self._output(["lsjson", "--stat", "--no-mimetype", self._place(name)], f"looking at {name}") or b"null")
        except FileNotFoundError:
            return None
        return None if listed is None or listed.get("IsDir") else StoredObject(name, listed["Size"])

    def pieces(self, name: str, version: str | None = None) -> Iterator[bytes]:  # noqa: ARG002
        if self.head(name) is None:
            # `cat` of a name that is a folder somewhere would give all files below.
            raise FileNotFoundError(name)
        with self._running(["cat", self._place(name)], f"reading {name}") as process:
            assert process.stdout is not None
            while piece := process.stdout.read(PIECE_BYTES):
                yield piece

    def names(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        try:
            text = self._output(["lsf", "--recursive", "--files-only", self._place(folder)], f"listing {prefix}")
        except FileNotFoundError:
            return
        for line in sorted(text.decode().splitlines()):
            name = f"{folder}/{line}" if folder else line
            if name.startswith(prefix):
                yield name

    def checksum_of(self, source: Source) -> str | None:  # noqa: ARG002 - what it would say depends on the remote
        return None

    def delete(self, name: str, version: str | None = None, *, bypass: bool = False) -> None:  # noqa: ARG002
        with suppress(FileNotFoundError):
            self._output(["deletefile", self._place(name)], f"removing {name}")

    def purge(self, prefix: str) -> int:  # noqa: ARG002 - no earlier contents are kept
        return 0

    def lock(self, name: str, lock: Lock, version: str | None = None, *, bypass: bool = False) -> None:  # noqa: ARG002
        raise self._no_lock()

    def close(self) -> None:
        if self._configuration is not None:
            os.close(self._configuration)
            self._configuration = None

    def _place(self, name: str) -> str:
        remote, _, path = self._root.partition(":")
        inner = f"{path.rstrip('/')}/{name}" if path.strip("/") else f"{path}{name}"
        return f"{remote}:{inner}"

    def _no_lock(self) -> LockNotOffered:
        return LockNotOffered(copy=self.shown, reason="rclone sets no locks; register a bucket as a copy of kind s3")

    # --- the child process ------------------------------------------------------------------------

    def _output(self, words: Sequence[str], what: str) -> bytes:
        with self._running(words, what) as process:
            assert process.stdout is not None
            return bytes(process.stdout.read())

    @contextmanager
    def _running(self, words: Sequence[str], what: str) -> Iterator[subprocess.Popen[bytes]]:
        """Raises FileNotFoundError, CopyNotAnswering, CopyRefused after its end."""
        configured = ["--config", f"/proc/self/fd/{self._configuration}"] if self._configuration is not None else []
        complaints = os.memfd_create("complaints", os.MFD_CLOEXEC)
        process = subprocess.Popen(
            [*DIES_WITH_US, self._program, *words[:1], *QUIET, *configured, *words[1:]],
            stdin=subprocess.PIPE if words[0] == "rcat" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=[self._configuration] if self._configuration is not None else [],
            cwd="/",
        )
        waiting = _SignsOfLife(process, self._report)
        try:
            try:
                yield process
            except BrokenPipeError:
                # It has ended, and says why.
                pass
            except BaseException:
                process.kill()
                raise
            self._judge(process.wait(), complaints, what)
        finally:
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
            process.kill()
            process.wait()
            waiting.stop()
            os.close(complaints)

    def _judge(self, code: int, complaints: int, what: str) -> None:
        if code == 0:
            return
        reason = _reason_in(os.pread(complaints, 1 << 16, 0)) or f"rclone ended with {code}"
        if code in (NO_FILE, NO_FOLDER):
            raise FileNotFoundError(what)
        if code in MAY_PASS or _is_of_the_network(reason):
            raise CopyNotAnswering(copy=self.shown, what=what, reason=reason)
        raise CopyRefused(copy=self.shown, what=what, reason=reason, answer=f"exit {code}")

    @staticmethod
    def _end_of_input(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()


class _SignsOfLife:
    """While rclone reads, writes or uses the processor, the step is alive. One that waits in vain is silent, and ends by its own limits."""

    def __init__(self, process: subprocess.Popen[bytes], report: Report) -> None:
        self._process, self._report = process, report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        last: Any = None
        while not self._stopped.wait(LOOK_S):
            now = _activity(self._process.pid)
            if now != last:
                self._report.alive()
            last = now


def _activity(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/io").read_bytes()
    return str(time.monotonic()).encode()


def program_of(shown: str) -> str:
    """The rclone of the service's own environment, or the host's. Raises CopyToolMissing."""
    own = Path(sys.executable).with_name("rclone")
    program = str(own) if own.is_file() else shutil.which("rclone")
    if program is None:
        raise CopyToolMissing(copy=shown, tool="rclone")
    return program


def _reason_in(complaints: bytes) -> str:
    """The last message of its log, which has a JSON object a line."""
    reason = ""
    for line in complaints.decode(errors="replace").splitlines():
        try:
            reason = str(json.loads(line)["msg"])
        except (ValueError, KeyError, TypeError):
            reason = line.strip() or reason
    return reason


def _is_of_the_network(reason: str) -> bool:
    return any(word in reason for word in ("dial tcp", "connection refused", "i/o timeout", "no such host", "network is unreachable"))


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):
            pipe.close()
