"""A process that is killed while it makes the socket of its server leaves a folder, which a later process removes."""

import os
import time
from pathlib import Path

import pytest

from service.model.repository import DEFINITION_FILE
from tests.repository.disks import MIB
from tests.scenes.sealed import Sealed


def test_the_folder_of_a_socket_that_a_killed_process_has_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    left, young, other = (temporary / name for name in ("stillpoint-nbd-left", "stillpoint-nbd-young", "other"))
    for folder in (left, young, other):
        folder.mkdir(parents=True)
        (folder / "socket").touch()
    for folder in (left, other):
        os.utime(folder, (time.time() - 7200,) * 2)
    monkeypatch.setenv("TMPDIR", str(temporary))
    sealed = Sealed(tmp_path / "repository", compress=True)
    point_id = sealed.seal((1, 0, MIB))
    assert (sealed.folder(point_id) / DEFINITION_FILE).is_file()
    assert {folder.name for folder in temporary.iterdir()} == {"stillpoint-nbd-young", "other"}
