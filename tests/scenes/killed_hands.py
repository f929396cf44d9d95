"""The process that works in a repository is killed from outside, as by a kernel that is short of memory."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from service.repository.hand import Hand


class KilledHands:
    """`left`: how often the process still dies in each step. It must have done another step before."""

    def __init__(self, patch: pytest.MonkeyPatch, **left: int) -> None:
        self.left = left
        real = Hand.call

        def call(hand: Hand, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
            pid = hand.child_pid
            if self.left.get(step) and pid is not None:
                self.left[step] -= 1
                options["safe_point"] = _killing(pid, options.get("safe_point"))
            return real(hand, step, arguments, **options)

        patch.setattr(Hand, "call", call)


def _killing(pid: int, then: Callable[[], None] | None) -> Callable[[], None]:
    """The caller looks at its safe point before it sends the step, and again while it waits for the answer."""
    signals = iter((signal.SIGSTOP, signal.SIGKILL))

    def safe_point() -> None:
        if (number := next(signals, None)) is not None:
            os.kill(pid, number)
        if then is not None:
            then()

    return safe_point
