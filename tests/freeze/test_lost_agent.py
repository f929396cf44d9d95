"""A thaw that nobody answers: the job looks from outside whether the guest writes, and ends soon where libvirt has lost the agent."""

from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest
from prometheus_client import REGISTRY

from service.db.engine import Database
from service.db.tables import Job
from service.freeze import fuse, lost_agent, seen_writing
from service.freeze import window as freeze_window
from tests.fakes import libvirt_error
from tests.scenes.host import THAW, Scene, error_of

libvirt: Any = _libvirt
AT_ONCE = {"timeout_ms": 1_000, "hold_limit_ms": 1_000}
"""The fuse of such a window is due after 7 s."""


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(freeze_window, "LOST_AGENT_PATIENCE_S", 0.2)
    monkeypatch.setattr(lost_agent, "LOOK_S", 0.3)
    monkeypatch.setattr(lost_agent, "FUSE_WAIT_S", 0.0)
    return Scene(sqlite_database, tmp_path)


def lose_the_agent_when_it_is_to_thaw(scene: Scene, *, is_thawed: bool = False) -> None:
    """`is_thawed`: the guest is not frozen any more, and nobody on the host was told."""

    def lose() -> None:
        scene.domain.agent.is_lost = True
        if is_thawed:
            scene.domain.agent.frozen.clear()

    scene.domain.when_next(THAW, lose)


def failed_with(job: Job, code: str) -> dict[str, Any]:
    assert job.state == "failed"
    assert error_of(job)["code"] == code
    return error_of(job)


def is_open(job: Job) -> bool:
    assert job.intent is not None
    return bool(job.intent["will_freeze"])


def test_a_guest_that_does_not_write_is_told_as_frozen_with_the_time_of_its_fuse(scene: Scene) -> None:
    lose_the_agent_when_it_is_to_thaw(scene)
    job = scene.run(freeze=AT_ONCE)
    error = failed_with(job, "guest_still_frozen")
    assert "guest-fsfreeze-thaw" in error["detail"]
    assert 0 < error["facts"]["fuse_left_s"] <= (job.freeze or {})["fuse"]["after_s"]
    assert is_open(job)


def test_a_guest_that_writes_again_is_not_told_as_frozen_and_proves_nothing(scene: Scene) -> None:
    lose_the_agent_when_it_is_to_thaw(scene, is_thawed=True)
    job = scene.run(freeze=AT_ONCE)
    failed_with(job, "thaw_unanswered")
    assert (job.verdict, is_open(job)) == ("crash", False)


@pytest.mark.parametrize("due_s", [0, 1])
def test_a_guest_that_writes_again_when_its_fuse_was_due_has_thawed_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, due_s: int
) -> None:
    monkeypatch.setattr(lost_agent, "FUSE_WAIT_S", 30.0)
    monkeypatch.setattr(fuse, "fires_after_s", lambda *_: due_s)
    before = fuses_fired()
    lose_the_agent_when_it_is_to_thaw(scene)
    for _ in range(round(due_s / seen_writing.PAUSE_S) + 2):
        scene.domain.when_next("bytes_written", lambda: None)
    scene.domain.when_next("bytes_written", scene.domain.agent.burn_fuse)
    job = scene.run(freeze=AT_ONCE)
    failed_with(job, "thaw_unanswered")
    assert job.freeze is not None
    assert (job.freeze["fuse"]["state"], fuses_fired()) == ("fired", before + 1)
    assert (job.verdict, is_open(job)) == ("crash", False)


def test_a_libvirt_that_does_not_tell_of_writes_leaves_the_guest_in_doubt(scene: Scene) -> None:
    lose_the_agent_when_it_is_to_thaw(scene, is_thawed=True)
    scene.domain.fail_next("bytes_written", libvirt_error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, "no statistics"), times=100)
    job = scene.run(freeze=AT_ONCE)
    failed_with(job, "guest_still_frozen")
    assert is_open(job)


def test_a_gate_tells_the_same(scene: Scene) -> None:
    lose_the_agent_when_it_is_to_thaw(scene, is_thawed=True)
    job = scene.run("quiesce", freeze={"mode": "required", **AT_ONCE})
    failed_with(job, "thaw_unanswered")


def fuses_fired() -> float:
    return REGISTRY.get_sample_value("stillpoint_fuses_fired_total") or 0.0
