"""A storage that hangs in the kernel: its process cannot be killed, and the caller is not held by it."""

import time
from typing import Any

import pytest

from service.errors import RepositoryNotAnswering
from service.repository import hand_start
from service.repository.hand import Hand
from tests.repository.filesystems import Freezable
from tests.repository.processes import until


class Hung:
    """Calls on a filesystem that hangs."""

    def __init__(self, filesystem: Freezable) -> None:
        self.path = str(filesystem.place)
        with Hand(self.path) as hand:
            hand.call("create", {"path": self.path, "id": "1"})

    def look(self) -> dict[str, Any]:
        with Hand(self.path, silence_s=3) as hand:
            return hand.call("look", {"path": self.path})


def test_a_storage_that_hangs_in_the_kernel_does_not_hold_the_caller(freezable_filesystem: Freezable) -> None:
    hung = Hung(freezable_filesystem)
    freezable_filesystem.freeze()
    began = time.monotonic()
    with pytest.raises(RepositoryNotAnswering):
        hung.look()
    assert time.monotonic() - began < 30
    assert [child.process.poll() for child in hand_start.hung_at(hung.path)] == [None], "it could be killed: this test shows nothing"
    freezable_filesystem.thaw()
    assert hung.look()["is_writable"]


def test_where_processes_hang_no_further_ones_are_started(freezable_filesystem: Freezable) -> None:
    hung = Hung(freezable_filesystem)
    freezable_filesystem.freeze()
    for _ in range(hand_start.MAX_HUNG + 2):
        with pytest.raises(RepositoryNotAnswering):
            hung.look()
    assert len(hand_start.hung_at(hung.path)) == hand_start.MAX_HUNG
    freezable_filesystem.thaw()
    until(lambda: not hand_start.hung_at(hung.path), "they do not end")
    assert hung.look()["is_writable"]
