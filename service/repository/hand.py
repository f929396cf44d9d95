"""The worker's side of the hand: the one process that touches a repository. A worker thread itself never does.

A repository that hangs holds the hand, and not the worker: after a silence the hand and all that it started are killed and left behind.
"""

import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from service import errors
from service.errors import RepositoryNotAnswering, RepositoryUnusable, StillpointError
from service.repository.hand_start import Child, start
from service.repository.keys import Key

SILENCE_S = 60.0
"""Seconds without a line from the hand. After that it is killed, and the storage counts as not answering."""
TICK_S = 0.2
"""Seconds between two looks of the caller at cancel and lease."""
START_S = 60.0
"""Seconds for a new process until it says that it runs. After that it is killed: the host is too busy, or broken."""
RATE_OVER_S = 5.0
"""Seconds over which the rate of a progress is taken. What is older does not count."""
READ_BYTES = 1 << 20
"""The most that one read takes from the hand. The rest comes with the next one."""


@dataclass(frozen=True)
class Progress:
    """`rate_bytes_s` is None until it can be measured."""

    done_bytes: int
    total_bytes: int | None
    rate_bytes_s: float | None


class Hand:
    """Starts its process at the first call, and again after it was killed. One call at a time; `set_pace` and `close` from any thread."""

    def __init__(self, path: str, *, key: Key | None = None, silence_s: float = SILENCE_S, program: str | None = None) -> None:
        """`program`: another module that the process runs, with the service's own Python."""
        self.path = path
        self._key = key
        self._program = program
        self._silence_s = silence_s
        self._child: Child | None = None
        self._in_call = threading.Lock()
        #: For what is written to the child, and for which child there is.
        self._lock = threading.Lock()
        self._outgoing = bytearray()
        self._pace: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def call(
        self,
        step: str,
        arguments: Mapping[str, Any],
        *,
        silence_s: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        safe_point: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """What the step returns.

        Raises what the step raised, RepositoryNotAnswering, RepositoryUnusable, KeyUnusable, and what `safe_point` and `on_progress`
        raise; except after an error of the step, the process is gone then. A call that was killed may still take effect: a write or a
        rename that hung is completed by the kernel when the storage answers again.
        """
        if not self._in_call.acquire(blocking=False):
            raise RuntimeError("this hand is in another call")
        try:
            if safe_point is not None:
                safe_point()
            call = _Call(self.path, step, self._silence_s if silence_s is None else silence_s, on_progress, safe_point)
            try:
                answer = self._answer(call, step, arguments)
            except BaseException:
                self._end()
                raise
        finally:
            self._in_call.release()
        if "error" in answer:
            raise error_of(answer["error"], answer.get("facts") or {}, self.path, step)
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    @property
    def child_pid(self) -> int | None:
        """The process, if there is one now."""
        with self._lock:
            return self._child.process.pid if self._child is not None else None

    def begin(self) -> None:
        """Start the process now: it gets ready while the caller does something else. What prevents that is raised by the first call."""
        if not self._in_call.acquire(blocking=False):
            return
        try:
            with suppress(StillpointError):
                self._living("begin")
        finally:
            self._in_call.release()

    def set_pace(self, bytes_s: int | None) -> None:
        """Bytes a second that steps may read. None: as fast as possible. 0: paused."""
        with self._lock:
            if bytes_s == self._pace:
                return
            self._pace = bytes_s
            if self._child is not None:
                self._outgoing += _line({"pace": bytes_s})
                _flush(self._child, self._outgoing)

    def close(self) -> None:
        """Kill the process and all that it started. Never waits for a process that hangs in the kernel."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
        # A call in another thread sees that the process is dead, and releases the rest.
        if self._in_call.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._in_call.release()

    def _answer(self, call: "_Call", step: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        request = {"step": step, "arguments": dict(arguments)}
        try:
            return self._asked(call, request)
        except _EndedBetweenCalls:
            # Its end could not be seen before. The step was not begun: another process can do it.
            self._end()
            return self._asked(call, request)

    def _asked(self, call: "_Call", request: Mapping[str, Any]) -> dict[str, Any]:
        child = self._living(request["step"])
        self._say(child, request)
        return call.wait(child, self._flush)

    def _living(self, step: str) -> Child:
        if self._child is not None and not self._child.is_ended():
            return self._child
        self._end()
        child = start(self.path, self._key.read() if self._key is not None else None, step, self._program)
        with self._lock:
            self._child = child
            self._outgoing = bytearray(_line({"pace": self._pace}))
        return child

    def _say(self, child: Child, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._outgoing += _line(message)
            _flush(child, self._outgoing)

    def _flush(self, child: Child) -> bool:
        with self._lock:
            return _flush(child, self._outgoing)

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()


class _EndedBetweenCalls(Exception):
    """The process had answered earlier calls, and ended by itself or was killed by others before it took the step of this one."""


class _Call:
    """One call: reads what the hand says until the step has ended."""

    def __init__(
        self,
        path: str,
        step: str,
        silence_s: float,
        on_progress: Callable[[Progress], None] | None,
        safe_point: Callable[[], None] | None,
    ) -> None:
        self._path, self._step, self._silence_s = path, step, silence_s
        self._on_progress, self._safe_point = on_progress, safe_point
        self._rate = _Rate()
        self._is_begun = False

    def wait(self, child: Child, flush: Callable[[Child], bool]) -> dict[str, Any]:
        """`flush` sends what is to be sent, and says whether that is all. May raise _EndedBetweenCalls."""
        last_line = last_look = time.monotonic()
        incoming = _Lines(child.from_child)
        while True:
            # Not select(), which cannot handle a descriptor above 1023.
            events = select.poll()
            events.register(child.from_child, select.POLLIN)
            if not flush(child):
                events.register(child.to_child, select.POLLOUT)
            events.poll(TICK_S * 1000)
            if incoming.read():
                last_line = time.monotonic()
            for line in incoming.complete():
                if "result" in line or "error" in line:
                    child.has_answered = True
                    return line
                self._note(line, child)
            if incoming.is_ended:
                if child.has_answered and not self._is_begun and not child.is_killed:
                    raise _EndedBetweenCalls
                raise RepositoryUnusable(path=self._path, step=self._step, reason=child.why_it_ended())
            # After reading: the caller may have been away for longer than the hand was silent.
            self._check_silence(time.monotonic() - last_line, child)
            if self._safe_point is not None and time.monotonic() - last_look >= TICK_S:
                self._safe_point()
                last_look = time.monotonic()

    def _check_silence(self, silent_s: float, child: Child) -> None:
        if not child.is_ready and silent_s > max(START_S, self._silence_s):
            raise RepositoryUnusable(path=self._path, step=self._step, reason=f"the process did not begin within {silent_s:.0f} s")
        if child.is_ready and silent_s > self._silence_s:
            raise RepositoryNotAnswering(path=self._path, step=self._step, silent_s=silent_s)

    def _note(self, line: Mapping[str, Any], child: Child) -> None:
        child.is_ready = child.is_ready or "ready" in line
        self._is_begun = self._is_begun or "begun" in line
        if self._on_progress is not None and "done" in line:
            done = int(line["done"])
            self._on_progress(Progress(done, line["total"], self._rate.at(time.monotonic(), done)))


class _Lines:
    """Splits what comes from the hand into lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: list[bytes] = []
        self._complete: list[bytes] = []
        self.is_ended = False

    def read(self) -> bool:
        """Whether anything came."""
        try:
            piece = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self.is_ended = True
            return False
        *ended, rest = piece.split(b"\n")
        for each in ended:
            self._complete.append(b"".join([*self._pieces, each]))
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        return True

    def complete(self) -> list[dict[str, Any]]:
        lines, self._complete = self._complete, []
        return [json.loads(line) for line in lines]


class _Rate:
    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def at(self, now: float, done: int) -> float | None:
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_OVER_S:
            self._samples.popleft()
        since, done_then = self._samples[0]
        return max(0.0, (done - done_then) / (now - since)) if now > since else None


def _line(message: Mapping[str, Any]) -> bytes:
    # ASCII: a name that is not UTF-8 passes as an escape, and is the same name on the other side.
    return json.dumps(message, default=str).encode() + b"\n"


def _flush(child: Child, outgoing: bytearray) -> bool:
    """Write without waiting. Whether nothing is left."""
    while outgoing:
        try:
            count = os.write(child.to_child, outgoing)
        except BlockingIOError:
            return False
        except OSError:
            # It is dead, and its output has ended: that is where the call sees it.
            outgoing.clear()
            return True
        del outgoing[:count]
    return True


_BY_CODE: Mapping[str, type[StillpointError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StillpointError)
}


def error_of(code: str, facts: Mapping[str, Any], path: str, step: str) -> StillpointError:
    """The error that the hand told in words of JSON."""
    try:
        return _BY_CODE[code](**facts)
    except (KeyError, TypeError, ValueError):
        # An error whose text cannot be made would hide the one that happened.
        return RepositoryUnusable(path=path, step=step, reason=f"{code}: {facts}")
