"""A restore that cannot work says why, names what to do instead, and leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import LibvirtCallFailed
from service.hypervisor.guest import Guest
from service.jobs import restore_files, restore_source
from service.model.restore_facts import Space
from service.model.windows.well_known_writers import NTDS
from tests.api.world import add_job
from tests.fakes.domain import RUNNING
from tests.fakes.libvirt_errors import libvirt_error
from tests.jobs.restoring import RestoreScene, first_byte
from tests.repository.filesystems import small
from tests.scenes.host import HOST, error_of
from tests.scenes.registered_hosts import publish, register


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


def assert_untouched(scene: RestoreScene) -> None:
    """No file, no domain, and the disk of the old one as it was."""
    assert scene.new_files() == []
    assert scene.new_domains() == []
    assert scene.domain.source("vda") == str(scene.disk_file)
    assert first_byte(scene.disk_file) == 9


def flip_a_byte(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(content)


# --- the point ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["new", "in_place", "instant"])
@pytest.mark.parametrize("damage", ["vda.qcow2", "vda.blocks", "manifest.json", "domain.xml"])
def test_a_damaged_point_is_refused_before_anything_is_written_and_the_next_good_one_is_named(
    scene: RestoreScene, mode: str, damage: str
) -> None:
    flip_a_byte(scene.sealed.folder_of(scene.point) / damage, -2)
    job = scene.restore(mode)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert error_of(job)["facts"]["next_good"] == scene.full
    assert_untouched(scene)
    assert scene.restore("new", scene.full).state == "succeeded"


def test_a_damage_is_put_on_record_with_the_point(scene: RestoreScene) -> None:
    flip_a_byte(scene.sealed.folder_of(scene.point) / "vda.qcow2")
    scene.restore("new")
    row = scene.point_row()
    assert row.state == "damaged"
    assert [(proof["kind"], proof["ok"]) for proof in row.proofs or ()] == [("bytes", False)]


def test_a_point_whose_parent_is_gone_says_which_one(scene: RestoreScene) -> None:
    scene.sealed.folder_of(scene.full).rename(scene.repository / "elsewhere")
    job = scene.restore("new")
    assert job.state == "failed"
    assert error_of(job)["code"] in ("point_incomplete", "point_damaged")
    assert error_of(job)["facts"]["next_good"] is None
    assert_untouched(scene)


def test_a_byte_that_turns_after_the_checksums_were_compared_is_seen_while_the_disk_is_written(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = restore_source.Archive.call

    def call(archive: restore_source.Archive, step: str, **arguments: Any) -> dict[str, Any]:
        answer = opened(archive, step, **arguments)
        if step == "verify_point":
            image = scene.sealed.folder_of(scene.point) / "vda.qcow2"
            flip_a_byte(image, image.stat().st_size - 1000)
        return answer

    monkeypatch.setattr(restore_source.Archive, "call", call)
    job = scene.restore("new")
    assert (job.state, error_of(job)["code"], error_of(job)["facts"]["next_good"]) == ("failed", "point_damaged", scene.full)
    assert_untouched(scene)


def test_a_repository_that_is_gone_is_not_a_damaged_point(scene: RestoreScene) -> None:
    scene.repository.rename(scene.repository.with_name("elsewhere"))
    job = scene.restore("new")
    assert (job.state, error_of(job)["code"]) == ("failed", "repository_gone")
    assert scene.point_row().state == "sealed"
    assert_untouched(scene)


# --- the target -----------------------------------------------------------------------------------


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "small") as folder:
        yield folder


def test_a_folder_without_space_is_refused_by_the_plan(scene: RestoreScene, small_folder: Path) -> None:
    job = scene.restore("new", folder=str(small_folder))
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_target_full")
    assert list(small_folder.iterdir()) == []
    assert_untouched(scene)


def test_a_folder_that_fills_meanwhile_keeps_nothing_of_the_restore(
    scene: RestoreScene, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_files, "spaces", lambda folders: {folder: Space(1, 1 << 40) for folder in folders})
    job = scene.restore("new", folder=str(small_folder))
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_target_full")
    assert list(small_folder.iterdir()) == []
    assert_untouched(scene)


def test_a_folder_that_is_not_there_is_named(scene: RestoreScene) -> None:
    job = scene.restore("new", folder="/nowhere/at/all")
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_refused")
    assert_untouched(scene)


def test_a_file_of_another_program_is_not_overwritten(scene: RestoreScene, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vda.qcow2").write_text("precious")
    job = scene.restore("files", folder=str(tmp_path / "out"))
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_refused")
    assert (tmp_path / "out" / "vda.qcow2").read_text() == "precious"


# --- the domain -----------------------------------------------------------------------------------


def test_a_domain_that_runs_is_not_restored_in_place_unless_it_may_be_stopped(scene: RestoreScene) -> None:
    scene.domain.resume()
    job = scene.restore("in_place")
    assert (job.state, error_of(job)["code"], scene.domain.state_now) == ("failed", "restore_refused", RUNNING)
    assert_untouched(scene)
    job = scene.restore("in_place", stop=True, start=True)
    assert (job.state, scene.domain.state_now) == ("succeeded", RUNNING)
    assert first_byte(scene.domain.source("vda")) == 2


def test_a_name_that_is_taken_is_refused(scene: RestoreScene) -> None:
    job = scene.restore("new", name="db1")
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_refused")
    assert_untouched(scene)


def test_a_domain_that_was_migrated_to_another_host_is_not_given_its_identity_again(scene: RestoreScene) -> None:
    """It is on record for the other host, and libvirt here knows nothing of it."""
    scene.domain.exists = False
    register(scene.database, "hv2")
    publish(scene.database, "hv2", scene.domain.uuid(), scene.domain.name(), "running")
    job = scene.restore("new", identity="keep")
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_refused")
    job = scene.restore("new")
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert (new.uuid() != scene.domain.uuid(), new.name() != scene.domain.name()) == (True, True)


def controller(scene: RestoreScene, definition: str | None = None) -> str:
    vss = {"applicable": True, "writers": [{"name": "NTDS", "class_id": NTDS}]}
    return scene.seal(vss=vss, definition=definition)


@pytest.mark.parametrize("mode", ["new", "in_place", "instant"])
def test_a_domain_controller_that_cannot_notice_its_restore_is_refused(scene: RestoreScene, mode: str) -> None:
    point = controller(scene)
    job = scene.restore(mode, point)
    assert (job.state, error_of(job)["code"]) == ("failed", "usn_rollback_risk")
    assert_untouched(scene)
    assert scene.restore(mode, point, accept_usn_risk=True).state == "succeeded"


def test_a_point_that_does_not_show_it_is_of_a_domain_controller_if_another_point_says_so(scene: RestoreScene) -> None:
    """The directory service was stopped when the point was taken, or its backup could not ask for the writers."""
    controller(scene)
    job = scene.restore("new")
    assert (job.state, error_of(job)["code"]) == ("failed", "usn_rollback_risk")
    assert_untouched(scene)


def test_a_job_that_saw_the_directory_writer_says_so_too(scene: RestoreScene) -> None:
    with scene.database.write() as session:
        vss = {"applicable": True, "writers": [{"class_id": NTDS.upper()}]}
        add_job(session, domain_id=scene.domain.uuid(), kind="preflight", vss=vss, host_id=HOST)
    job = scene.restore("new")
    assert (job.state, error_of(job)["code"]) == ("failed", "usn_rollback_risk")


def test_what_is_not_known_of_a_domain_controller_is_warned_of(scene: RestoreScene) -> None:
    job = scene.restore("new")
    assert "domain_controller_unknown" in [warning["code"] for warning in restored(job)["plan"]["warnings"]]


def test_a_domain_controller_with_a_generation_id_gets_a_new_one(scene: RestoreScene) -> None:
    old = "11111111-2222-4333-8444-555555555555"
    xml = scene.host.guest("db1").inactive_xml().replace("<devices>", f"<genid>{old}</genid><devices>")
    job = scene.restore("new", controller(scene, xml))
    assert job.state == "succeeded", error_of(job)
    (new,) = scene.new_domains()
    assert "<genid>" in new.inactive_xml()
    assert old not in new.inactive_xml()


def cannot_start() -> Exception:
    return libvirt_error(1, "internal error: qemu unexpectedly closed the monitor")


def test_in_place_a_domain_that_does_not_start_gets_its_old_disks_back(scene: RestoreScene) -> None:
    scene.domain.fail_next("start", cannot_start())
    job = scene.restore("in_place", start=True)
    assert (job.state, error_of(job)["code"]) == ("failed", "restored_domain_failed")
    assert_untouched(scene)


def test_in_place_a_domain_that_ran_runs_again_after_its_restore_failed(scene: RestoreScene) -> None:
    scene.domain.resume()
    scene.domain.fail_next("start", cannot_start())
    job = scene.restore("in_place", stop=True, start=True)
    assert (job.state, error_of(job)["code"], scene.domain.state_now) == ("failed", "restored_domain_failed", RUNNING)
    assert_untouched(scene)


def test_a_domain_that_libvirt_does_not_define_leaves_no_disks(scene: RestoreScene) -> None:
    scene.host.define_errors.append(LibvirtCallFailed(call="virDomainDefineXML", libvirt_code=67, message="unsupported configuration"))
    job = scene.restore("new")
    assert job.state == "failed", job.result
    assert_untouched(scene)


def test_old_disks_are_removed_only_after_the_domain_has_run(scene: RestoreScene) -> None:
    job = scene.restore("in_place", start=True, remove_old_disks=True)
    assert restored(job)["old_disks_removed"] == [str(scene.disk_file)]
    assert not scene.disk_file.exists()


def test_old_disks_stay_when_the_domain_is_not_started(scene: RestoreScene) -> None:
    job = scene.restore("in_place", remove_old_disks=True)
    assert (restored(job)["old_disks"], restored(job)["old_disks_removed"]) == ([str(scene.disk_file)], [])
    assert scene.disk_file.exists()


def outcomes(scene: RestoreScene, point: str, kind: str) -> list[bool | None]:
    """Of the point's proofs of this kind."""
    return [proof["ok"] for proof in scene.point_row(point).proofs or () if proof["kind"] == kind]


@pytest.mark.parametrize("mode", ["in_place", "new", "instant"])
def test_a_qemu_that_runs_without_an_agent_is_no_evidence_that_the_guest_has_run(scene: RestoreScene, mode: str) -> None:
    """QEMU also runs when the firmware finds no system on the disk."""
    scene.domain.channel = False
    point = scene.seal()
    job = scene.restore(mode, point, start=True, remove_old_disks=True)
    assert (restored(job)["has_run"], restored(job)["old_disks_removed"]) == (None, [])
    assert outcomes(scene, point, "restored") == [None]
    (warning,) = restored(job)["warnings"]
    assert warning["code"] == "guest_not_seen_running"
    assert scene.disk_file.exists()
    assert (str(scene.disk_file) in warning["detail"]) == (mode == "in_place")


def while_it_waits_for_the_guest(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, happens: str) -> Job:
    """A restore in place whose guest does not answer, and what happens to its run meanwhile: the event of this name is set."""
    job_id = scene.ask_restore("in_place", start=True, remove_old_disks=True)
    run = scene.claim()

    def not_connected(_: Guest) -> bool:
        getattr(run, happens).set()
        return False

    monkeypatch.setattr(Guest, "agent_is_connected", not_connected)
    scene.execution.execute(run)
    return scene.job(job_id)


def test_a_cancel_ends_the_wait_for_the_guest_and_the_restored_domain_stays(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    job = while_it_waits_for_the_guest(scene, monkeypatch, "cancel_requested")
    assert (job.state, error_of(job)["code"], scene.domain.state_now) == ("cancelled", "job_cancelled", RUNNING)
    assert first_byte(scene.domain.source("vda")) == 2
    assert job.result is not None
    assert (job.result["restore"]["has_run"], job.result["restore"]["old_disks"]) == (None, [str(scene.disk_file)])
    assert scene.disk_file.exists()


def test_a_lost_lease_ends_the_wait_for_the_guest_and_nothing_more_is_written(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    job = while_it_waits_for_the_guest(scene, monkeypatch, "lease_lost")
    assert (job.state, outcomes(scene, scene.point, "restored")) == ("running", [])
    assert scene.disk_file.exists()


@pytest.mark.parametrize("step", ["make_overlay", "close_to_qemu"])
def test_an_instant_restore_that_is_cancelled_takes_back_the_right_of_qemu_to_read(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    called, done = restore_source.Archive.call, []
    scene.ask_restore("instant")
    run = scene.claim()

    def call(archive: restore_source.Archive, asked: str, **arguments: Any) -> dict[str, Any]:
        if asked == step:
            run.cancel_requested.set()
        answer = called(archive, asked, **arguments)
        done.append(asked)
        return answer

    monkeypatch.setattr(restore_source.Archive, "call", call)
    scene.execution.execute(run)
    assert (done.count("open_to_qemu"), done.count("close_to_qemu")) == (1, 1)
    if step == "make_overlay":
        assert_untouched(scene)


def restored(job: Job) -> dict[str, Any]:
    assert job.state == "succeeded", error_of(job)
    assert job.result is not None
    result: dict[str, Any] = job.result["restore"]
    return result
