"""A merge of points beside the disk: what every other point and the guest see stays the same, whatever dies and whoever else is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.disks import chain_merging, chain_users, overlay_file, overlays
from service.jobs import merge_chain
from service.jobs.run import JobRun
from service.model.lifecycle import PointState
from service.records import points, queue
from tests.fakes.domain import FakeDisk
from tests.scenes.beside_disk import MIB, BesideScene
from tests.scenes.deaths import die, doomed, recovered
from tests.scenes.graves import Grave
from tests.scenes.host import HOST, error_of

OFF, RUNS = "off", "runs"
OLDEST, MIDDLE, NEWEST = 0, 1, 2


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BesideScene:
    scene = BesideScene(sqlite_database, tmp_path)
    scene.take(3)
    return scene


@pytest.fixture(params=[RUNS, OFF])
def in_both_states(request: pytest.FixtureRequest, scene: BesideScene) -> BesideScene:
    if request.param == OFF:
        scene.domain.shut_off()
    return scene


def without(shown: dict[str, str], point_id: str) -> dict[str, str]:
    return {name: digest for name, digest in shown.items() if not name.startswith(point_id)}


def is_merged(scene: BesideScene, before: dict[str, str], gone: str) -> bool:
    """The point is gone, the others and the guest see what they saw, and no file is left that nobody needs."""
    assert scene.there() == [each for each in scene.point_ids if each != gone]
    assert scene.shown() == without(before, gone)
    chain = scene.chain()
    assert scene.files() == set(chain)
    assert {disk["file"] for point in scene.points() for disk in point.disks} <= set(chain[1:])
    return True


# --- what it does -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [OLDEST, MIDDLE, NEWEST])
def test_one_point_goes_and_no_other_changes(in_both_states: BesideScene, number: int) -> None:
    scene = in_both_states
    before, gone = scene.shown(), scene.point_ids[number]
    job = scene.merge(gone)
    assert (job.state, job.error, job.intent) == ("succeeded", None, None)
    assert is_merged(scene, before, gone)
    assert len(scene.chain()) == 3
    assert [(phase["name"], phase["outcome"]) for phase in job.phases] == [("plan", "ok"), ("merge", "ok"), ("remove", "ok")]
    assert job.result is not None
    assert [removed["id"] for removed in job.result["prune"]["removed"]] == [gone]


def test_all_points_go_in_one_job_and_the_disk_is_on_its_first_file(in_both_states: BesideScene) -> None:
    scene = in_both_states
    before = scene.shown()["guest vda"]
    job = scene.merge(*scene.point_ids)
    assert (job.state, job.error) == ("succeeded", None)
    assert (scene.there(), scene.shown()) == ([], {"guest vda": before})
    assert scene.chain() == [str(scene.images / "db1-vda.qcow2")]


def test_a_point_of_two_disks_goes_from_both(sqlite_database: Database, tmp_path: Path) -> None:
    scene = BesideScene(sqlite_database, tmp_path, ("vda", "vdb"))
    scene.take(3)
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    assert scene.merge(gone).error is None
    assert scene.shown() == without(before, gone)
    assert (len(scene.chain("vda")), len(scene.chain("vdb"))) == (3, 3)
    assert scene.files() == {*scene.chain("vda"), *scene.chain("vdb")}


def test_the_next_point_names_the_file_of_the_point_that_went(scene: BesideScene) -> None:
    (old,), (upper,) = scene.point(scene.point_ids[MIDDLE]).disks, scene.point(scene.point_ids[NEWEST]).disks
    scene.merge(scene.point_ids[MIDDLE])
    (now,) = scene.point(scene.point_ids[NEWEST]).disks
    assert (now["file"], now["overlay"], now["format"]) == (old["file"], upper["overlay"], "qcow2")


def test_points_that_are_taken_and_merged_in_turn_keep_the_chain_as_short_as_it_is(scene: BesideScene) -> None:
    for _ in range(3):
        scene.take(1)
        oldest = scene.there()[0]
        before = scene.shown()
        assert scene.merge(oldest).error is None
        assert scene.shown() == without(before, oldest)
    assert (len(scene.chain()), len(scene.there())) == (4, 3)


def test_the_job_shows_how_far_it_is(scene: BesideScene, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(JobRun, "progress", lambda _run, _phase, done, total, *_more, **_: told.append((done, total)))
    scene.domain.merges["vda"] = iter([(MIB, 4 * MIB), (3 * MIB, 4 * MIB)])
    assert scene.merge(scene.point_ids[OLDEST]).error is None
    assert told == [(MIB, 4 * MIB), (3 * MIB, 4 * MIB)]


# --- what is refused --------------------------------------------------------------------------------


def stays_as_it_was(scene: BesideScene, job: Job, before: dict[str, str], code: str) -> bool:
    assert (job.state, error_of(job)["code"]) == ("failed", code)
    assert (scene.shown(), scene.there()) == (before, scene.point_ids)
    return {point.state for point in scene.points()} == {PointState.taken}


def test_a_point_that_was_pinned_meanwhile_stays(scene: BesideScene) -> None:
    before = scene.shown()
    job_id = scene.ask_merge(scene.point_ids[OLDEST])
    with scene.database.write() as session:
        points.set_pinned(session, scene.point_ids[OLDEST], pinned=True)
    assert stays_as_it_was(scene, scene.again(job_id), before, "point_pinned")


def test_a_disk_that_another_tool_has_put_elsewhere_is_left_alone(scene: BesideScene) -> None:
    before = scene.shown()
    scene.domain.put_disk("vda", scene.images / "db1-vda.qcow2")
    job = scene.merge(scene.point_ids[OLDEST])
    assert error_of(job)["code"] == "point_off_chain"
    assert "block_commit_active" not in scene.domain.log
    assert without(scene.shown(), "guest") == without(before, "guest")


def test_a_domain_that_stands_on_the_files_of_the_point_is_named(in_both_states: BesideScene) -> None:
    """A clone that is off: no lock of QEMU protects what it reads at its next start."""
    scene = in_both_states
    clone = scene.images / "clone.qcow2"
    chain_merging_base = scene.point(scene.point_ids[OLDEST]).disks[0]["file"]
    make_overlay(clone, chain_merging_base)
    other = scene.add("clone", ())
    other.disks.append(FakeDisk("vda", clone))
    other.put_disk("vda", clone)
    other.shut_off()
    before = scene.shown()
    job = scene.merge(scene.point_ids[OLDEST])
    assert stays_as_it_was(scene, job, before, "point_files_shared")
    assert error_of(job)["facts"]["domains"] == ["clone"]


def make_overlay(path: Path, base: str) -> None:
    overlay_file.make(str(path), base, ["-f", "qcow2", "-u", "-b", base, "-F", "qcow2"], 8 * MIB)


def test_a_domain_with_a_managed_save_is_left_alone(scene: BesideScene) -> None:
    before = scene.shown()
    scene.domain.shut_off()
    scene.domain.managed_save = True
    assert stays_as_it_was(scene, scene.merge(scene.point_ids[OLDEST]), before, "merge_impossible")


def test_a_domain_of_which_libvirt_has_snapshots_is_left_alone(scene: BesideScene) -> None:
    before = scene.shown()
    scene.domain.libvirt_snapshots.append("before-update")
    assert stays_as_it_was(scene, scene.merge(scene.point_ids[OLDEST]), before, "merge_impossible")


# --- what goes wrong in the merge -------------------------------------------------------------------


def is_given_up_and_harmless(scene: BesideScene, before: dict[str, str], gone: str) -> bool:
    assert scene.shown() | {name: before[name] for name in before if name.startswith(gone)} == before
    return scene.point(gone).state == PointState.leaving


@pytest.mark.parametrize("number", [OLDEST, NEWEST])
def test_a_cancelled_merge_hurts_no_other_point_and_the_next_one_ends_it(scene: BesideScene, number: int) -> None:
    before, gone = scene.shown(), scene.point_ids[number]
    job_id = scene.ask_merge(gone)
    run = scene.claim()

    def course() -> Iterator[tuple[int, int]]:
        yield MIB, 4 * MIB
        run.cancel_requested.set()
        yield 2 * MIB, 4 * MIB
        yield 3 * MIB, 4 * MIB

    scene.domain.merges["vda"] = course()
    scene.execution.execute(run)
    assert scene.job(job_id).state == "cancelled"
    assert (scene.domain.commits, scene.domain.mirrors) == ({}, {})
    assert is_given_up_and_harmless(scene, before, gone)
    scene.domain.merges.clear()
    assert scene.merge(gone).error is None
    assert is_merged(scene, before, gone)


def test_a_merge_that_qemu_ends_with_an_error_is_told_and_the_next_one_ends_it(scene: BesideScene, monkeypatch: pytest.MonkeyPatch) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    with monkeypatch.context() as patch:
        patch.setattr(chain_merging, "SETTLE_S", 0.0)
        scene.domain.commits_fail = True
        job = scene.merge(gone)
    assert (job.state, error_of(job)["code"]) == ("failed", "point_merge_unfinished")
    assert is_given_up_and_harmless(scene, before, gone)
    scene.domain.commits_fail = False
    assert scene.merge(gone).error is None
    assert is_merged(scene, before, gone)


def test_the_domain_may_be_shut_off_in_the_middle(scene: BesideScene) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]

    def course() -> Iterator[tuple[int, int]]:
        yield MIB, 4 * MIB
        scene.domain.shut_off()
        yield 2 * MIB, 4 * MIB

    scene.domain.merges["vda"] = course()
    assert scene.merge(gone).error is None
    assert is_merged(scene, before, gone)


def test_qemu_may_be_killed_in_the_middle(scene: BesideScene) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]

    def course() -> Iterator[tuple[int, int]]:
        yield MIB, 4 * MIB
        scene.domain.kill_qemu()
        yield 2 * MIB, 4 * MIB

    scene.domain.merges["vda"] = course()
    assert scene.merge(gone).error is None
    assert is_merged(scene, before, gone)


def test_a_libvirt_that_goes_away_in_the_middle_is_waited_for_by_recovery(scene: BesideScene) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]

    def course() -> Iterator[tuple[int, int]]:
        yield MIB, 4 * MIB
        scene.domain.libvirtd_goes_away(1)
        yield 2 * MIB, 4 * MIB
        yield 3 * MIB, 4 * MIB

    scene.domain.merges["vda"] = course()
    job_id = scene.ask_merge(gone)
    scene.execution.execute(scene.claim())
    assert scene.job(job_id).state == "running"
    with scene.database.write() as session:
        queue.release_expired(session, HOST, all_running=True)
    assert recovered(scene, job_id).state == "queued"
    assert scene.again(job_id).error is None
    assert is_merged(scene, before, gone)


# --- deaths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("number", "call"), [(MIDDLE, "block_commit"), (MIDDLE, "block_job"), (NEWEST, "block_commit_active"), (NEWEST, "block_pivot")]
)
def test_after_a_death_in_a_call_the_next_attempt_ends_it(scene: BesideScene, number: int, call: str, after: bool) -> None:
    before, gone = scene.shown(), scene.point_ids[number]
    moment = scene.domain.die_in(call, after=after)
    scene.ask_merge(gone)
    job_id = die(scene, moment)
    assert without(scene.shown(), gone) == without(before, gone)
    assert recovered(scene, job_id).state == "queued"
    assert scene.again(job_id).error is None
    assert is_merged(scene, before, gone)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(chain_users, "must_not_shrink"), (merge_chain, "merge_below"), (overlays, "remove")],
    ids=["the plan", "the merge", "the removal"],
)
def test_after_a_death_between_the_steps_the_next_attempt_ends_it(
    in_both_states: BesideScene, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: bool
) -> None:
    scene = in_both_states
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    grave = Grave(monkeypatch, owner, name, after=after)
    scene.ask_merge(gone)
    job_id = die(scene, grave.reached)
    assert without(scene.shown(), gone) == without(before, gone)
    assert recovered(scene, job_id).state == "queued"
    assert scene.again(job_id).error is None
    assert is_merged(scene, before, gone)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["commit", "_stand_on_base", "_take_out_of_definition", "_must_be_out"])
def test_after_a_death_between_the_steps_of_qemu_img_the_next_attempt_ends_it(
    scene: BesideScene, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    scene.domain.shut_off()
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    grave = Grave(monkeypatch, chain_merging, name, after=after)
    scene.ask_merge(gone)
    job_id = die(scene, grave.reached)
    assert without(scene.shown(), gone) == without(before, gone)
    recovered(scene, job_id)
    assert scene.again(job_id).error is None
    assert is_merged(scene, before, gone)
    scene.domain.start()
    assert scene.sources() == {"vda": Path(scene.chain()[0]).name}


def test_after_a_death_at_the_end_the_point_is_not_looked_for_again(scene: BesideScene) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    scene.ask_merge(gone)
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    assert scene.again(job.id).error is None
    assert is_merged(scene, before, gone)


def test_a_merge_without_an_attempt_left_hurts_nothing_and_can_be_asked_for_again(
    scene: BesideScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, gone = scene.shown(), scene.point_ids[MIDDLE]
    grave = Grave(monkeypatch, merge_chain, "merge_below", after=True)
    scene.ask_merge(gone, max_attempts=1)
    job = recovered(scene, die(scene, grave.reached))
    assert (job.state, error_of(job)["code"]) == ("failed", "worker_lost")
    assert is_given_up_and_harmless(scene, before, gone)
    job = scene.merge(gone)
    assert job.error is None
    assert (scene.there(), scene.shown()) == ([each for each in scene.point_ids if each != gone], without(before, gone))
    # Whether the merge was ours is not known any more, so the file stays, and the job names it.
    assert [phase["outcome"] for phase in job.phases if phase["name"] == "merge"] == ["warning"]
