"""Repositories for the tests of this folder."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.repository import hand_start
from service.repository.hand import Hand
from service.repository.store import Repository
from tests.repository.filesystems import Freezable, freezable, small

REPOSITORY_ID = str(uuid.UUID(int=1))


@pytest.fixture
def trial_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hand has the steps of `trial_hand` as well."""
    monkeypatch.setattr(hand_start, "PROGRAM", "tests.repository.trial_hand")


@pytest.fixture
def hand(trial_steps: None, tmp_path: Path) -> Iterator[Hand]:
    with Hand(str(tmp_path)) as hand:
        yield hand


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(str(tmp_path / "repository"), REPOSITORY_ID) as repository:
        repository.create()
        yield repository


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "small") as place:
        yield place


@pytest.fixture
def freezable_filesystem(tmp_path: Path) -> Iterator[Freezable]:
    with freezable(tmp_path / "freezable") as filesystem:
        yield filesystem
