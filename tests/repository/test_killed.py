"""A hand that is killed at any instant of a point costs nothing but the time: the next try ends with the same whole point."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import RepositoryUnusable
from service.model.manifest import Manifest
from service.repository.evidence import check_folder, is_good
from service.repository.signing import SigningKey
from service.repository.store import Repository
from tests.repository.manifests import DOMAIN, manifest

DISK = os.urandom(3 << 20)
FILES = ["vda.qcow2", "tpm/2/permall", "domain.xml"]


def _one_try(repository: Repository, source: Path, key: SigningKey) -> Manifest:
    """As the job does it: whatever an earlier try has left, from the beginning."""
    unfinished = repository.begin_point(DOMAIN, "point")
    if unfinished.is_published:
        return repository.point(f"domains/{DOMAIN}/point")
    repository.put_file(unfinished.partial, "vda.qcow2", source)
    repository.put_file(unfinished.partial, "tpm/2/permall", source)
    repository.put_text(unfinished.partial, "domain.xml", "<domain/>")
    point = manifest("point", repository.seal(unfinished.partial, FILES), key_id=key.id)
    repository.publish(unfinished.partial, point, key)
    return point


class Killer:
    """Kills the hand some time after it was started, again and again, later each time."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.killed = 0

    def after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._kill)
        timer.start()
        return timer

    def _kill(self) -> None:
        child = self._repository.hand.child_pid
        if child is not None:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                self.killed += 1


@pytest.mark.parametrize("start_ms", [0, 1, 2, 3])
def test_a_point_becomes_whole_however_often_its_hand_is_killed(repository: Repository, tmp_path: Path, start_ms: int) -> None:
    key = SigningKey.of_service(tmp_path / "state")
    source = tmp_path / "source"
    source.write_bytes(DISK)
    repository.look()
    took_s = _time_of_one_try(repository, source, key)
    killer = Killer(repository)
    attempts, point = 0, None
    while point is None:
        # The first ones are killed early, the last one not at all.
        timer = killer.after(start_ms / 1000 + attempts * took_s / 12)
        attempts += 1
        with suppress(RepositoryUnusable):
            point = _one_try(repository, source, key)
        timer.cancel()
        timer.join()
        assert attempts < 60
    assert killer.killed > 0
    folder = Path(repository.path, "domains", DOMAIN, "point")
    assert repository.point(f"domains/{DOMAIN}/point") == point
    assert is_good(check_folder(folder, None))
    assert (folder / "vda.qcow2").read_bytes() == DISK


def test_a_removal_whose_hand_is_killed_leaves_a_whole_point_or_nothing_that_looks_like_one(repository: Repository, tmp_path: Path) -> None:
    key = SigningKey.of_service(tmp_path / "state")
    source = tmp_path / "source"
    source.write_bytes(DISK[: 1 << 16])
    relative = f"domains/{DOMAIN}/point"
    folder, killer = Path(repository.path, relative), Killer(repository)
    for instant in range(16):
        _one_try(repository, source, key)
        timer = killer.after(instant * 0.0003)
        with suppress(RepositoryUnusable):
            repository.remove_point(relative)
        timer.join()
        assert [each.folder for each in repository.points()] == [relative] * folder.exists()
        assert not folder.exists() or is_good(check_folder(folder, None))
        repository.remove_point(relative)
        assert list(folder.parent.iterdir()) == []
    assert killer.killed > 0


def _time_of_one_try(repository: Repository, source: Path, key: SigningKey) -> float:
    began = time.monotonic()
    with Repository(repository.path + " for the time", repository.id) as other:
        other.create()
        _one_try(other, source, key)
    return time.monotonic() - began
