"""Pytest plugin: a test whose worker died in a call to a repository leaves no hand.

Such a worker is a thread that never returns. A real worker takes its hands with it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

HAND = b"service.repository.hand_process"


@pytest.fixture(autouse=True)
def _hands_end_with_their_test() -> Iterator[None]:
    before = hands()
    yield
    for process in hands() - before:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def hands() -> set[int]:
    """The hands that this process has started. Each of them leads a group of its own."""
    children = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            children |= set(map(int, (thread / "children").read_text().split()))
    return {child for child in children if _is_hand(child)}


def _is_hand(child: int) -> bool:
    with suppress(OSError):
        return HAND in Path(f"/proc/{child}/cmdline").read_bytes()
    return False
