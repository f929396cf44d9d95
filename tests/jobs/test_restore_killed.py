"""A restore, and the process that works in its repository is killed from outside."""

from pathlib import Path

import pytest

from service.db.engine import Database
from tests.fakes.domain import RUNNING
from tests.jobs.restoring import RestoreScene, first_byte
from tests.scenes.host import error_of
from tests.scenes.killed_hands import KilledHands

STEPS = [
    *(("new", step) for step in ("read_point", "read_file", "look_at_files", "verify_point", "restore_disk", "copy_out")),
    *(("instant", step) for step in ("open_to_qemu", "make_overlay", "close_to_qemu")),
]


@pytest.mark.parametrize(("mode", "step"), STEPS)
def test_a_restore_whose_process_is_killed_ends_well(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, step: str
) -> None:
    scene = RestoreScene(sqlite_database, tmp_path)
    point = with_firmware(scene, tmp_path) if step == "copy_out" else scene.point
    hands = KilledHands(monkeypatch, **{step: 1})
    job = scene.restore(mode, point, start=True)
    assert (job.state, hands.left) == ("succeeded", {step: 0}), error_of(job)
    (new,) = scene.new_domains()
    assert new.state_now == RUNNING
    assert first_byte(new.source("vda")) == 2


def with_firmware(scene: RestoreScene, folder: Path) -> str:
    """A point with the variables of a firmware."""
    nvram = folder / "db1_VARS.fd"
    nvram.write_bytes(b"variables")
    definition = scene.host.guest("db1").inactive_xml().replace("</domain>", f"<os><nvram>{nvram}</nvram></os></domain>")
    scene.write_disk(2)
    point = scene.seal(definition=definition, nvram=nvram)
    scene.write_disk(9)
    return point
