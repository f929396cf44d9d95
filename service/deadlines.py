"""Calls that may hang for ever, with a time limit. Each call runs in a helper thread. A call that hangs stays in its thread."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

MAX_HUNG_CALLS = 4
"""Calls of one lane that may hang at once. At the limit the next call of the lane is refused at once."""
MAX_IDLE_THREADS = 16
"""Helper threads that are kept for later calls. Further threads end after their call."""


class CallTimedOut(Exception):
    """The call did not return in time, and still runs in its thread. Or the call was not begun (`waited_s` 0), because its lane is full."""

    def __init__(self, call: str, lane: str, waited_s: float) -> None:
        super().__init__(f"{call} of {lane} did not return within {waited_s:.3f} s")
        self.call = call
        self.lane = lane
        self.waited_s = waited_s

    @property
    def why(self) -> str:
        return "the call still hangs" if self.waited_s else "earlier calls of this kind hang, so this call was not begun"


class HelperThreads:
    """Runs blocking calls with a limit.

    A call that hangs blocks its helper thread, not the caller. A *lane* is the thing that calls hang on (a domain, an agent, a
    folder). A lane that hangs never stops another lane. The threads are daemons: the process ends without waiting for them.
    """

    def __init__(self, max_hung_calls: int = MAX_HUNG_CALLS) -> None:
        self._max_hung_calls = max_hung_calls
        self._forget()
        # A forked child has none of its parent's threads.
        os.register_at_fork(after_in_child=self._forget)

    def run(self, function: Callable[[], T], limit_s: float, *, call: str, lane: str, discard: Callable[[T], object] | None = None) -> T:
        """What `function` returns or raises. Raises CallTimedOut after `limit_s`, or at once if the lane is full of hung calls.

        `discard` gets the result of a call that returns after its caller has stopped waiting.
        """
        task = _Task(function, call, lane, discard)
        self._helper(lane, call).put(task)
        if not task.done.acquire(timeout=limit_s) and self._leave_behind(task):
            _warn("call_left_behind", call=call, lane=lane, limit_s=limit_s, in_all=self.left_behind())
            raise CallTimedOut(call, lane, limit_s)
        result: T = task.outcome()
        return result

    def left_behind(self) -> int:
        """How many calls hang whose caller has stopped waiting."""
        with self._lock:
            return self._left_behind.total()

    def hangs(self, call: str, lane: str) -> bool:
        """Whether such a call timed out and has not returned since then. Its effect may still happen."""
        with self._lock:
            return self._calls[call, lane] > 0

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Task]] = []
        self._left_behind: Counter[str] = Counter()
        self._calls: Counter[tuple[str, str]] = Counter()

    def _helper(self, lane: str, call: str) -> SimpleQueue["_Task"]:
        """The inbox of an idle thread."""
        with self._lock:
            if self._left_behind[lane] >= self._max_hung_calls:
                raise CallTimedOut(call, lane, 0.0)
            if self._idle:
                return self._idle.pop()
        inbox: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._serve, args=(inbox,), name="helper", daemon=True).start()
        return inbox

    def _leave_behind(self, task: "_Task") -> bool:
        with self._lock:
            if task.has_ended:
                return False
            task.is_left_behind = True
            self._left_behind[task.lane] += 1
            self._calls[task.call, task.lane] += 1
            return True

    def _serve(self, inbox: SimpleQueue["_Task"]) -> None:
        stays = True
        while stays:
            task = inbox.get()
            task.work()
            stays = self._ended(task, inbox)
            if task.is_left_behind:
                task.throw_away()
            del task

    def _ended(self, task: "_Task", inbox: SimpleQueue["_Task"]) -> bool:
        """True: the thread is kept for later calls."""
        with self._lock:
            task.has_ended = True
            stays = len(self._idle) < MAX_IDLE_THREADS
            if stays:
                self._idle.append(inbox)
            if task.is_left_behind:
                self._returned(self._left_behind, task.lane)
                self._returned(self._calls, (task.call, task.lane))
        if task.is_left_behind:
            _warn("call_returned_late", call=task.call, lane=task.lane, after_s=round(time.monotonic() - task.begun, 3))
        task.done.release()
        return stays

    @staticmethod
    def _returned(counter: Counter[Any], key: Any) -> None:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


class _Task:
    def __init__(self, function: Callable[[], Any], call: str, lane: str, discard: Callable[[Any], object] | None) -> None:
        self.call = call
        self.lane = lane
        self.begun = time.monotonic()
        self.has_ended = False
        self.is_left_behind = False
        #: Held until the call has ended. A lock, because waiting for an Event costs three times as much.
        self.done = threading.Lock()
        self.done.acquire()
        self._function = function
        self._discard = discard
        self._result: Any = None
        self._error: BaseException | None = None

    def work(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - every error is given to the caller
            self._error = error

    def throw_away(self) -> None:
        if self._discard is not None and self._error is None:
            self._discard(self._result)

    def outcome(self) -> Any:
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            # The traceback of the error refers to this frame. Without `del`, error and frame would keep each other alive.
            del error


def _warn(event: str, **facts: Any) -> None:
    # Imported late, because a thaw guard uses this module too and must stay small.
    from service import log

    log.get(__name__).warning(event, **facts)


HELPERS = HelperThreads()
"""The helper threads of this process."""

CLOSE_S = 3.0
"""Seconds for closing what may hang on a file system that hangs. Then it is left behind, and the process ends without it."""


def close_in_time(close: Callable[[], object], *, call: str) -> bool:
    """False: `close` did not return within CLOSE_S, and still runs."""
    try:
        HELPERS.run(close, CLOSE_S, call=call, lane=call)
    except CallTimedOut:
        return False
    return True
