"""The backup job from its claim to its end, with a fake domain and a real repository."""

import json
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.db.engine import Database, database_now
from service.db.tables import Job
from service.errors import RepositoryFull, RepositoryGone, RepositoryNotAnswering, RepositoryReadOnly, StillpointError
from service.model.inventory import DomainState
from service.records import damage
from tests.scenes.backups import SIZE, BackupScene, Steps, write
from tests.scenes.host import FREEZE, THAW, error_of, phases_of

PATH = "/repository"
BAD = (
    RepositoryFull(path=PATH, needed_bytes=1, free_bytes=0),
    RepositoryGone(path=PATH, reason="no such folder"),
    RepositoryReadOnly(path=PATH, reason="read-only file system"),
    RepositoryNotAnswering(path=PATH, step="copy_disk", silent_s=60.0),
)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def test_a_backup_seals_a_point_and_leaves_the_guest_as_it_was(scene: BackupScene) -> None:
    job = scene.run(compare="everything")
    assert (job.state, job.verdict, job.error, job.intent) == ("succeeded", "filesystem", None, None), job.error
    names = ("preflight", "prepare", "freeze", "point_in_time", "thaw", "evaluate", "transfer", "compare", "seal", "merge")
    assert phases_of(job) == [(name, "ok") for name in names]
    (manifest,), (point,) = scene.manifests(), scene.sealed()
    assert job.recovery_point is not None
    assert manifest.point_id == point.id == job.recovery_point["id"]
    assert (point.folder, point.verdict, manifest.verdict) == (manifest.folder, "filesystem", "filesystem")
    assert manifest.evidence is not None
    assert scene.is_as_before()
    assert scene.partial_folders() == []


def test_nothing_but_the_snapshot_happens_between_freeze_and_thaw(scene: BackupScene) -> None:
    scene.run()
    log = scene.domain.log
    assert log[log.index(FREEZE) : log.index(THAW) + 1] == [FREEZE, "snapshot_create", THAW]


def test_the_checkpoint_comes_before_the_snapshot_and_only_that_of_the_last_point_stays(scene: BackupScene) -> None:
    scene.run()
    assert scene.domain.log.index("checkpoint_create") < scene.domain.log.index("snapshot_create")
    scene.run()
    assert scene.our_checkpoints() == [scene.manifests()[-1].disks[0].checkpoint]


def test_checkpoints_of_other_tools_are_not_touched(scene: BackupScene) -> None:
    scene.domain.checkpoints = ["veeam-1"]
    scene.run()
    scene.run()
    assert "veeam-1" in scene.domain.checkpoints


def test_the_second_point_is_an_increment_by_the_bitmap_of_the_first(scene: BackupScene) -> None:
    first = scene.run()
    write(scene.domain.source("vda"), 7, 1 << 20)
    second = scene.run()
    assert (scene.levels(first), scene.levels(second)) == ({"vda": "full"}, {"vda": "bitmap"})
    older, newer = scene.manifests()
    assert newer.parents == (older.point_id,)
    assert newer.disks[0].copied_bytes < older.disks[0].copied_bytes + (1 << 20)


# --- the level ------------------------------------------------------------------------------------


def test_after_qemu_was_killed_the_next_backup_is_full_and_says_why(scene: BackupScene) -> None:
    scene.run()
    scene.domain.kill_qemu()
    scene.domain.start()
    job = scene.run()
    assert scene.levels(job) == {"vda": "full"}
    assert scene.manifests()[-1].disks[0].reason
    assert scene.levels(scene.run()) == {"vda": "bitmap"}


def test_a_chain_that_is_as_deep_as_the_policy_allows_is_followed_by_a_full_with_its_reason(scene: BackupScene) -> None:
    """`new_full` comes with the request, as the schedule of a policy asks for it."""
    levels = [scene.levels(scene.run(new_full={"max_depth": 2}))["vda"] for _ in range(4)]
    assert levels == ["full", "bitmap", "bitmap", "full"]
    assert "max_depth" in scene.manifests()[-1].disks[0].reason
    assert scene.levels(scene.run(new_full={"max_depth": 2})) == {"vda": "bitmap"}, "the chain begins again"


def test_increments_that_are_larger_than_the_policy_allows_are_followed_by_a_full_with_its_reason(scene: BackupScene) -> None:
    scene.run()
    scene.run()
    full, increment = (sum(file.bytes for file in manifest.files) for manifest in scene.manifests())
    allowed = increment / full
    assert scene.levels(scene.run(new_full={"max_depth": None, "max_ratio": allowed})) == {"vda": "bitmap"}
    assert scene.levels(scene.run(new_full={"max_depth": None, "max_ratio": allowed})) == {"vda": "full"}
    assert "max_ratio" in scene.manifests()[-1].disks[0].reason


def test_an_increment_that_is_asked_for_and_impossible_freezes_nothing(scene: BackupScene) -> None:
    job = scene.run(level="incremental")
    assert (error_of(job)["code"], scene.freezes()) == ("increment_impossible", 0)
    assert scene.is_as_before()


def test_two_disks_that_are_nearly_the_same_and_changed_places_are_copied_in_full(sqlite_database: Database, tmp_path: Path) -> None:
    """The samples that are compared are the same in both."""
    scene = BackupScene(sqlite_database, tmp_path, ("vda", "vdb"))
    scene.run()
    scene.domain.exchange("vda", "vdb")
    job = scene.run()
    assert scene.levels(job) == {"vda": "full", "vdb": "full"}
    files = [disk.source_files for disk in scene.manifests()[-1].disks]
    assert [names[0] for names in files] == [scene.domain.source("vda"), scene.domain.source("vdb")]


def test_a_raw_disk_is_compared_by_content(scene: BackupScene) -> None:
    scene.replace([scene.disk("vda", format="raw")])
    scene.run()
    write(scene.domain.source("vda"), 9, 2 << 20, "raw")
    second = scene.run()
    assert scene.levels(second) == {"vda": "content"}
    assert scene.manifests()[-1].disks[0].copied_bytes <= 1 << 20
    assert scene.our_checkpoints() == []


def test_a_disk_that_was_added_is_full_beside_an_increment(scene: BackupScene) -> None:
    scene.run()
    scene.replace([scene.domain.disks[0], scene.disk("vdb")], uuid_text=scene.domain.uuid())
    assert scene.levels(scene.run())["vdb"] == "full"


def test_a_disk_that_was_removed_is_not_in_the_next_point(scene: BackupScene) -> None:
    scene.replace([scene.domain.disks[0], scene.disk("vdb")])
    scene.run()
    scene.domain.detach("vdb")
    scene.domain.agent.disks = ("vda",)
    job = scene.run()
    assert job.state == "succeeded", job.error
    assert [disk.target for disk in scene.manifests()[-1].disks] == ["vda"]


def test_a_point_whose_folder_is_gone_is_not_a_parent(scene: BackupScene) -> None:
    import shutil

    scene.run()
    shutil.rmtree(scene.path / scene.manifests()[0].folder)
    job = scene.run()
    assert (job.state, scene.levels(job)) == ("succeeded", {"vda": "full"})


# --- the repository -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", BAD, ids=lambda error: error.code)
def test_a_bad_repository_is_told_before_anything_is_frozen(scene: BackupScene, steps: Steps, error: StillpointError) -> None:
    steps.fail("look", error)
    job = scene.run()
    assert (job.state, error_of(job)["code"], scene.freezes()) == ("failed", error.code, 0)
    assert scene.is_as_before()


@pytest.mark.parametrize("step", ["begin_point", "copy_disk", "seal", "publish"])
@pytest.mark.parametrize("error", BAD, ids=lambda error: error.code)
def test_a_repository_that_becomes_bad_costs_the_backup_and_not_the_guest(
    scene: BackupScene, steps: Steps, step: str, error: StillpointError
) -> None:
    steps.fail(step, error, times=None)
    job = scene.run()
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", error.code, "none")
    assert scene.is_as_before()
    assert (scene.our_checkpoints(), scene.sealed(), scene.partial_folders()) == ([], [], [])


def test_a_repository_that_comes_back_costs_nothing(sqlite_database: Database, tmp_path: Path, steps: Steps) -> None:
    scene = BackupScene(sqlite_database, tmp_path, repository_patience_seconds=60.0)
    for step in ("copy_disk", "seal", "publish"):
        steps.fail(step, BAD[0])
    job = scene.run()
    assert (job.state, len(scene.sealed()), scene.freezes()) == ("succeeded", 1, 1)


def waiting_for(scene: BackupScene) -> Any:
    """As the job that runs shows it."""
    with scene.database.read() as session:
        progress = session.scalars(select(Job.progress).where(Job.state == "running")).one()
    return (progress or {}).get("waiting_for")


@pytest.mark.parametrize("step", ["inspect_source", "copy_disk", "publish"])
def test_a_job_that_waits_for_its_repository_says_so_and_until_when(
    sqlite_database: Database, tmp_path: Path, steps: Steps, step: str
) -> None:
    scene = BackupScene(sqlite_database, tmp_path, repository_patience_seconds=60.0)
    scene.run()
    shown: list[Any] = []

    def note_and_go_on(_: object) -> None:
        shown.append(waiting_for(scene))
        if len(shown) == 1:
            raise BAD[3]

    steps.before(step, note_and_go_on, times=2)
    job = scene.run()
    before, waits = shown
    assert (job.state, job.progress, before) == ("succeeded", None, None), job.error
    patience = datetime.fromisoformat(waits["until"]) - datetime.fromisoformat(waits["since"])
    assert (waits["code"], patience) == (BAD[3].code, timedelta(seconds=60))


def test_a_job_that_goes_on_waits_no_longer(sqlite_database: Database, tmp_path: Path, steps: Steps) -> None:
    scene = BackupScene(sqlite_database, tmp_path, repository_patience_seconds=60.0)
    shown: list[Any] = []

    def note(_: object) -> None:
        shown.append(waiting_for(scene))

    steps.fail("put_file", BAD[3])
    steps.before("copy_disk", note)
    assert (scene.run().state, shown) == ("succeeded", [None])


def test_a_copy_that_differs_is_not_sealed(scene: BackupScene, steps: Steps) -> None:
    def damage(_: object) -> None:
        (image,) = scene.path.rglob("vda.qcow2")
        write(image, 99, 0)

    steps.after("copy_disk", damage)
    job = scene.run(compare="everything")
    assert error_of(job)["code"] == "copy_differs"
    assert (scene.sealed(), scene.is_as_before()) == ([], True)


# --- the guest during the copy --------------------------------------------------------------------


def test_a_guest_that_shuts_down_during_the_copy_is_back_on_its_disks(scene: BackupScene, steps: Steps) -> None:
    steps.before("copy_disk", lambda _: scene.domain.shut_off())
    job = scene.run()
    assert (job.state, len(scene.sealed())) == ("succeeded", 1), job.error
    assert scene.is_as_before()


def test_a_guest_that_wrote_and_shut_down_during_the_copy_keeps_what_it_wrote(scene: BackupScene, steps: Steps) -> None:
    def write_and_end(_: object) -> None:
        write(scene.domain.source("vda"), 42, 3 << 20)
        scene.domain.shut_off()

    disk = scene.domain.source("vda")
    steps.before("copy_disk", write_and_end)
    job = scene.run()
    assert (job.state, scene.is_as_before()) == ("succeeded", True), job.error
    assert b"\x2a" * 65536 in Path(disk).read_bytes()


def test_a_guest_that_is_started_anew_during_the_copy_is_merged_back(scene: BackupScene, steps: Steps) -> None:
    steps.before("copy_disk", lambda _: scene.domain.power_cycle())
    job = scene.run()
    assert (job.state, scene.is_as_before()) == ("succeeded", True), job.error


def test_where_every_point_is_damaged_the_next_one_is_full_and_says_why(scene: BackupScene) -> None:
    scene.run()
    scene.run()
    first, second = sorted(scene.points(), key=lambda point: point.point_in_time_at)
    with scene.database.write() as session:
        damage.put_on_record(session, second, [str(first.folder)], None, now=database_now(session), facts={})
    job = scene.run()
    assert job.result is not None, job.error
    (disk,) = job.result["backup"]["disks"]
    assert (disk["level"], len(scene.sealed())) == ("full", 1)
    assert first.id in disk["reason"] or second.id in disk["reason"]


def test_after_qemu_was_killed_during_the_copy_the_next_backup_trusts_no_bitmap(scene: BackupScene, steps: Steps) -> None:
    def kill_and_start(_: object) -> None:
        scene.domain.kill_qemu()
        scene.domain.start()

    scene.run()
    steps.before("copy_disk", kill_and_start)
    job = scene.run()
    assert (job.state, scene.is_as_before()) == ("succeeded", True), job.error
    assert scene.levels(scene.run()) == {"vda": "full"}


def test_a_broken_checkpoint_is_told_and_is_gone_after_the_next_backup(scene: BackupScene, steps: Steps) -> None:
    def kill_and_start(_: object) -> None:
        scene.domain.kill_qemu()
        scene.domain.start()

    scene.run()
    steps.before("copy_disk", kill_and_start)
    assert phases_of(scene.run())[-1] == ("merge", "warning")
    assert scene.our_checkpoints() == []
    last = scene.run()
    assert (phases_of(last)[-1], scene.our_checkpoints()) == (("merge", "ok"), [scene.manifests()[-1].disks[0].checkpoint])
    assert last.result is not None
    assert last.result["backup"]["disks"][0]["reason"]


def test_a_checkpoint_that_stays_as_the_guest_has_shut_down_is_told_and_is_gone_after_the_next_backup(
    scene: BackupScene, steps: Steps
) -> None:
    scene.run()
    steps.before("copy_disk", lambda _: scene.domain.shut_off())
    assert phases_of(scene.run())[-1] == ("merge", "warning")
    assert len(scene.our_checkpoints()) == 2
    scene.domain.start()
    last = scene.run()
    assert (scene.levels(last), scene.our_checkpoints()) == ({"vda": "bitmap"}, [scene.manifests()[-1].disks[0].checkpoint])


def test_a_guest_that_shuts_down_during_a_copy_that_fails_keeps_no_bitmap_of_it(scene: BackupScene, steps: Steps) -> None:
    """libvirt deletes no bitmap of a domain that is off."""

    def end_and_fail(_: object) -> None:
        scene.domain.shut_off()
        raise BAD[0]

    steps.before("copy_disk", end_and_fail)
    job = scene.run()
    assert (job.state, scene.is_as_before(), scene.our_checkpoints()) == ("failed", True, [])
    command = ["qemu-img", "info", "--output=json", scene.domain.source("vda")]
    info = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert info["format-specific"]["data"].get("bitmaps", []) == []


def test_a_merge_that_does_not_end_is_told_and_the_next_backup_does_it_first(scene: BackupScene) -> None:
    from tests.fakes import libvirt_error

    scene.domain.fail_next("block_commit_active", libvirt_error(1, "internal error: not now"))
    first = scene.run()
    assert (first.state, error_of(first)["code"], len(scene.sealed())) == ("failed", "merge_unfinished", 1)
    assert scene.overlays() != []
    second = scene.run()
    assert (second.state, scene.is_as_before()) == ("succeeded", True), second.error


# --- a domain that is off -------------------------------------------------------------------------


def test_a_domain_that_is_off_is_backed_up_and_put_back(scene: BackupScene) -> None:
    scene.run()
    scene.domain.shut_off()
    job = scene.run()
    assert (job.state, job.verdict, scene.levels(job)) == ("succeeded", "offline", {"vda": "bitmap"}), job.error
    assert scene.host.guest("db1").state() is DomainState.shut_off
    assert (scene.is_as_before(), len(scene.our_checkpoints())) == (True, 1)


def test_a_domain_that_is_off_keeps_the_passwords_of_its_definition(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one of libvirt's two texts of a definition has them."""
    scene.domain.shut_off()
    defined: list[str] = []
    define = scene.domain.define
    secure = scene.domain.secure_xml
    monkeypatch.setattr(scene.domain, "secure_xml", lambda: secure().replace("</devices>", "<graphics type='vnc' passwd='x'/></devices>"))

    def note(xml: str) -> None:
        defined.append(xml)
        define(xml)

    monkeypatch.setattr(scene.domain, "define", note)
    scene.run()
    assert [xml.count("passwd") for xml in defined] == [1]


def test_after_a_point_of_a_domain_that_was_off_the_next_one_is_compared_by_content(scene: BackupScene) -> None:
    scene.domain.shut_off()
    scene.run()
    scene.domain.start()
    assert scene.levels(scene.run()) == {"vda": "content"}


# --- a verdict that is too low --------------------------------------------------------------------


def test_a_point_that_falls_short_is_copied_all_the_same_and_the_job_fails(scene: BackupScene) -> None:
    job = scene.run(required_verdict="application")
    assert (job.state, error_of(job)["code"], len(scene.sealed())) == ("failed", "verdict_below_required", 1)
    assert scene.is_as_before()


def test_a_point_that_falls_short_and_is_tried_again_still_tells_what_was_copied(scene: BackupScene) -> None:
    job = scene.run(required_verdict="application", on_shortfall="retry")
    assert (job.result or {}).keys() == {"backup", "next_try"}


def test_a_point_that_falls_short_and_shall_be_discarded_is_not_copied(scene: BackupScene, steps: Steps) -> None:
    job = scene.run(required_verdict="application", on_shortfall="discard")
    assert (job.state, error_of(job)["code"], scene.sealed()) == ("failed", "verdict_below_required", [])
    assert "copy_disk" not in steps.seen
    assert (scene.is_as_before(), scene.our_checkpoints()) == (True, [])


def test_a_snapshot_between_two_backups_makes_no_increment_wrong(scene: BackupScene) -> None:
    scene.run()
    scene.run("snapshot")
    job = scene.run()
    assert (job.state, scene.levels(job)) == ("succeeded", {"vda": "bitmap"}), job.error


def test_a_disk_that_has_grown_is_an_increment_of_the_new_size(scene: BackupScene) -> None:
    scene.run()
    subprocess.run(["qemu-img", "resize", "-q", scene.domain.source("vda"), str(2 * SIZE)], check=True, capture_output=True)
    scene.domain.disks[0].size = 2 * SIZE
    job = scene.run()
    assert (job.state, scene.manifests()[-1].disks[0].virtual_size) == ("succeeded", 2 * SIZE), job.error
