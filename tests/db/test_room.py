"""The room for the writes of a job is looked for without a file that a killed process could leave."""

import errno
import os
from pathlib import Path

import pytest

from service.db import room


def test_nothing_has_a_name_while_room_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    real = os.posix_fallocate

    def allocate(descriptor: int, offset: int, length: int) -> None:
        real(descriptor, offset, length)
        seen.append(list(tmp_path.iterdir()))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    room.find(tmp_path)
    assert seen == [[]]


def test_a_folder_that_is_gone_or_full_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        room.find(tmp_path / "gone")

    def is_full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    with pytest.raises(OSError, match="space"):
        room.find(tmp_path)
