"""What a restore reads and when, what a cancel leaves, and points that are encrypted."""

import os
import shutil
from pathlib import Path
from typing import Any

import libvirt
import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import RestoredPointDamaged
from service.jobs import restore_domain, restore_flatten
from service.jobs.restore import Restore
from service.jobs.restore_flatten import Flattening
from service.jobs.restore_source import Archive
from service.model.kinds import JobKind
from service.records import points, stamps
from service.repository.stamps import stamp_of
from tests.fakes.domain import RUNNING
from tests.jobs.restoring import RestoreScene, first_byte
from tests.scenes.host import HOST, error_of
from tests.scenes.sealed_points import SealedPoints

PAUSED_BY_ERROR = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of the hand, as a restore calls them."""
    called: list[str] = []
    real = Archive.call

    def call(archive: Archive, step: str, **arguments: Any) -> dict[str, Any]:
        called.append(step)
        return real(archive, step, **arguments)

    monkeypatch.setattr(Archive, "call", call)
    return called


def lately(scene: RestoreScene) -> str:
    """A point whose bytes were read when it was sealed."""
    scene.write_disk(2)
    point = scene.seal(is_proven=True)
    scene.write_disk(9)
    return point


def image_of(scene: RestoreScene, point: str) -> Path:
    return scene.sealed.folder_of(point) / "vda.qcow2"


def damage(scene: RestoreScene, point: str) -> None:
    """A byte of the file turns, and the time of its last write is put back."""
    image = image_of(scene, point)
    before = image.stat()
    content = bytearray(image.read_bytes())
    content[-1000] ^= 0xFF
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def damage_below_the_filesystem(scene: RestoreScene, point: str) -> None:
    """A bad medium: the filesystem knows of no change, so the proof still has the stamp."""
    damage(scene, point)
    folder = scene.sealed.manifests[point].folder
    stamp = stamp_of(str(scene.repository), folder, scene.sealed.manifests[point])
    with scene.database.write() as session:
        before = (points.get(session, point).proofs or [])[0]["facts"]["stamps"][folder]
        stamps.take_over(session, scene.sealed.id, {folder: [before, stamp]})


def test_a_point_that_was_sealed_lately_is_read_once_while_it_is_written(scene: RestoreScene, steps: list[str]) -> None:
    job = scene.restore("new", lately(scene))
    assert job.state == "succeeded", error_of(job)
    assert "verify_point" not in steps


def test_an_older_point_is_read_before_anything_is_written(scene: RestoreScene, steps: list[str]) -> None:
    scene.restore("new")
    assert steps.index("verify_point") < steps.index("restore_disk")


def test_an_instant_restore_of_a_point_that_was_sealed_lately_starts_first_and_reads_then(scene: RestoreScene, steps: list[str]) -> None:
    job = scene.restore("instant", lately(scene))
    assert job.state == "succeeded", error_of(job)
    assert steps.index("make_overlay") < steps.index("verify_point")


def test_the_job_says_on_which_proof_it_relied_and_how_old_that_is(scene: RestoreScene) -> None:
    relied = relied_on(scene.restore("instant", lately(scene)))
    assert relied is not None
    assert (relied["job_id"], 0 <= relied["age_s"] < 3600) == (None, True)
    assert relied_on(scene.restore("files", folder=str(scene.images))) is None


def relied_on(job: Job) -> dict[str, Any] | None:
    assert job.result is not None, job.error
    assert job.result["restore"]["bytes_read"] == ("before" if job.result["restore"]["relies_on"] is None else "after")
    relied: dict[str, Any] | None = job.result["restore"]["relies_on"]
    return relied


@pytest.mark.parametrize("mode", ["new", "instant"])
def test_a_damage_whose_time_was_put_back_is_found_before_anything_is_written(scene: RestoreScene, mode: str) -> None:
    point = lately(scene)
    damage(scene, point)
    job = scene.restore(mode, point)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert (scene.new_files(), scene.new_domains()) == ([], [])


def test_a_file_that_was_replaced_by_the_same_bytes_is_read_before_the_start(scene: RestoreScene, steps: list[str]) -> None:
    point = lately(scene)
    image = image_of(scene, point)
    copy = image.with_name("copy")
    shutil.copy2(image, copy)
    copy.replace(image)
    assert scene.restore("instant", point).state == "succeeded"
    assert steps.index("verify_point") < steps.index("make_overlay")


def test_a_proof_that_is_too_old_is_read_again_before_the_start(scene: RestoreScene, steps: list[str]) -> None:
    scene.handlers[JobKind.restore] = Restore(proof_days=0.0)  # type: ignore[index]  # the scene keeps them in a dict
    scene.restore("instant", lately(scene))
    assert steps.index("verify_point") < steps.index("make_overlay")


def test_a_request_may_want_the_bytes_read_before_the_start(scene: RestoreScene, steps: list[str]) -> None:
    scene.restore("instant", lately(scene), verify="before")
    assert steps.index("verify_point") < steps.index("make_overlay")


def test_a_parent_that_was_never_read_is_read_before_the_start(scene: RestoreScene, steps: list[str]) -> None:
    scene.restore("instant", scene.seal(parent=scene.full, is_proven=True))
    assert steps.index("verify_point") < steps.index("make_overlay")


def test_the_read_of_one_restore_stands_for_the_next_one(scene: RestoreScene, steps: list[str]) -> None:
    scene.restore("instant")
    steps.clear()
    scene.restore("instant")
    assert steps.index("make_overlay") < steps.index("verify_point")


def test_a_change_of_rights_by_the_service_takes_no_proof_away_and_another_change_does(scene: RestoreScene) -> None:
    point = lately(scene)
    folder = scene.sealed.manifests[point].folder
    with scene.database.write() as session:
        before = (points.get(session, point).proofs or [])[0]["facts"]["stamps"]
        stamps.take_over(session, scene.sealed.id, {folder: [before[folder], "after"], "another": ["x", "y"]})
        row = points.get(session, point)
        assert stamps.standing(session, row, {folder: "after"}) is not None
        assert stamps.standing(session, row, before) is None
        stamps.take_over(session, scene.sealed.id, {folder: ["not the one before", "later"]})
        assert stamps.standing(session, points.get(session, point), {folder: "later"}) is None


def test_a_damage_behind_a_proof_is_seen_while_the_disk_is_written(scene: RestoreScene) -> None:
    point = lately(scene)
    damage_below_the_filesystem(scene, point)
    job = scene.restore("new", point)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert (scene.new_files(), scene.new_domains()) == ([], [])


def test_a_damage_that_no_filesystem_knows_of_is_told_loudly_after_an_instant_start(scene: RestoreScene) -> None:
    point = lately(scene)
    damage_below_the_filesystem(scene, point)
    job = scene.restore("instant", point)
    (new,) = scene.new_domains()
    facts = error_of(job)["facts"]
    assert (job.state, error_of(job)["code"]) == ("failed", RestoredPointDamaged.code)
    assert (facts["domain"], facts["point"], facts["next_good"]) == (new.name(), point, scene.point)
    assert job.result is not None
    assert (job.result["restore"]["reads_repository"], job.result["restore"]["bytes_verified"]) == (["vda"], False)
    assert (scene.point_row(point).state, new.state_now) == ("damaged", RUNNING)


# --- cancel ---------------------------------------------------------------------------------------


def cancelled_at(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mode: str, step: str | None = None) -> Job:
    job_id = scene.ask_restore(mode, start=True)
    run = scene.claim()
    real = getattr(owner, name)

    def call(*arguments: Any, **more: Any) -> Any:
        if step is None or step in arguments:
            run.cancel_requested.set()
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, call)
    scene.execution.execute(run)
    return scene.job(job_id)


@pytest.mark.parametrize("step", ["verify_point", "restore_disk"])
@pytest.mark.parametrize("mode", ["new", "in_place"])
def test_a_cancel_before_the_switch_leaves_nothing(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, mode: str, step: str) -> None:
    job = cancelled_at(scene, monkeypatch, Archive, "call", mode, step)
    assert job.state == "cancelled", job.error
    assert (scene.new_files(), scene.new_domains()) == ([], [])
    assert scene.domain.source("vda") == str(scene.disk_file)


@pytest.mark.parametrize(
    ("owner", "name"), [(Flattening, "_step"), (restore_domain, "bring_up_or_take_back")], ids=["in the copy", "before it"]
)
def test_a_cancel_behind_the_restored_guest_leaves_it_running_over_the_repository_and_says_so(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    job = cancelled_at(scene, monkeypatch, owner, name, "instant")
    assert (job.state, error_of(job)["facts"]["phase"]) == ("cancelled", "flatten")
    assert job.result is not None
    told = job.result["restore"]
    assert (told["reads_repository"], [warning["code"] for warning in told["warnings"]]) == (["vda"], ["stays_on_repository"])
    (new,) = scene.new_domains()
    assert new.state_now == RUNNING
    assert Path(new.source("vda")).exists()


# --- the domain while its disks are made whole ----------------------------------------------------


def test_a_domain_that_is_shut_down_before_its_disks_are_whole_is_made_whole_while_it_is_off(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Flattening._step

    def shut_down_first(flattening: Flattening, guest: Any, target: str) -> None:
        (new,) = scene.new_domains()
        if new.state_now == RUNNING:
            new.shut_off()
        real(flattening, scene.host.guest(guest.uuid), target)

    monkeypatch.setattr(Flattening, "_step", shut_down_first)
    job = scene.restore("instant")
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert first_byte(new.source("vda")) == 2
    scene.repository.rename(scene.repository.with_name("elsewhere"))
    assert first_byte(new.source("vda")) == 2
    assert "<backingStore" not in new.inactive_xml()


def test_a_domain_that_an_error_of_the_repository_paused_is_resumed(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_flatten, "RETRY_PAUSE_S", 0.01)
    real = Flattening._step
    paused: list[bool] = []

    def pause_once(flattening: Flattening, guest: Any, target: str) -> None:
        (new,) = scene.new_domains()
        if not paused:
            new.state_now = PAUSED_BY_ERROR
            paused.append(True)
        real(flattening, guest, target)

    monkeypatch.setattr(Flattening, "_step", pause_once)
    job = scene.restore("instant")
    assert job.state == "succeeded", error_of(job)
    assert scene.new_domains()[0].state_now == RUNNING


# --- encrypted ------------------------------------------------------------------------------------


def test_an_encrypted_point_is_restored_with_its_key_and_refused_with_a_wrong_one(scene: RestoreScene, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("correct horse")
    scene.sealed = SealedPoints(scene.database, tmp_path / "encrypted", HOST, f"file:{key}")
    scene.write_disk(2)
    point = scene.seal()
    scene.write_disk(9)

    job = scene.restore("new", point)
    assert job.state == "succeeded", error_of(job)
    assert first_byte(scene.new_domains()[0].source("vda")) == 2
    assert error_of(scene.restore("instant", point))["code"] == "restore_refused"
    files = scene.new_files()

    key.write_text("wrong horse")
    job = scene.restore("new", point)
    assert (job.state, error_of(job)["code"]) == ("failed", "key_unusable")
    assert scene.new_files() == files


@pytest.mark.parametrize("mode", ["new", "instant"])
def test_a_plan_says_on_which_proof_the_restore_would_rely(scene: RestoreScene, steps: list[str], mode: str) -> None:
    point = lately(scene)
    plan, relied = plan_of(scene, mode, point), relied_on(scene.restore(mode, point))
    assert relied is not None
    assert (plan["bytes_read"], plan["relies_on"]["read_at"]) == ("after", relied["read_at"])
    assert plan["reads_repository_until"] == ("flattened" if mode == "instant" else "written")


def test_a_plan_says_that_every_byte_is_read_before_where_no_proof_stands_or_it_is_asked_for(scene: RestoreScene, steps: list[str]) -> None:
    point = lately(scene)
    plans = [plan_of(scene, "instant"), plan_of(scene, "instant", point, verify="before")]
    assert [(plan["bytes_read"], plan["relies_on"]) for plan in plans] == [("before", None)] * 2
    assert "verify_point" not in steps, "a plan reads no point"


def test_a_plan_of_a_point_whose_files_were_changed_names_the_damage(scene: RestoreScene) -> None:
    """As the restore would, and before anybody waits for it."""
    point = lately(scene)
    image = image_of(scene, point)
    image.write_bytes(image.read_bytes()[:-512])
    job = scene.restore("instant", point, plan_only=True)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")


def plan_of(scene: RestoreScene, mode: str, point: str | None = None, **request: Any) -> Any:
    job = scene.restore(mode, point, plan_only=True, **request)
    assert job.state == "succeeded", error_of(job)
    assert job.result is not None
    return job.result["restore"]["plan"]
