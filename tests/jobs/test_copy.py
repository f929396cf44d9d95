"""The job kind copy: what is missing there is sent, bases first; what is there comes back; what a store claims is tried."""

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.copies.courier import Courier
from service.db.engine import Database
from service.db.tables import CopiedPoint, Job
from service.jobs.copy import Copy
from service.jobs.prune import Prune
from service.model.copied import CopyAction
from service.model.kinds import JobKind
from service.model.lifecycle import PointState
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.records import copies, points, queue, removal, repositories
from service.records.queue import NewJob
from service.repository.hand import Hand
from service.repository.store import Repository
from tests.copies import servers
from tests.copies.servers import KEY, S3Server
from tests.scenes.copied import Copied
from tests.scenes.host import HOST, error_of
from tests.scenes.sealed import Sealed


@pytest.fixture
def world(three_points: Sealed, sqlite_database: Database, tmp_path: Path) -> Copied:
    return Copied(sqlite_database, tmp_path, three_points)


@pytest.fixture(scope="module")
def keeping() -> Iterator[S3Server]:
    with servers.moto("keeps-locks") as server:
        yield server


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers.rclone_serve_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


def result_of(job: Job) -> dict[str, Any]:
    assert job.result is not None
    result: dict[str, Any] = job.result["copy"]
    return result


def sent_by(job: Job) -> list[str]:
    return [point["id"] for point in result_of(job)["points"]]


def whole(world: Copied) -> set[str]:
    return {point_id for point_id, state in world.states().items() if state == "whole"}


# --- there ------------------------------------------------------------------------------------------


def test_all_points_are_sent_bases_first_and_then_none(world: Copied) -> None:
    world.register()
    job = world.run()
    assert (job.state, sent_by(job)) == ("succeeded", [world.full, world.middle, world.top])
    assert whole(world) == {world.full, world.middle, world.top}
    assert sent_by(world.run()) == []
    with Repository(str(world.place), world.sealed.id) as copy:
        assert {point.manifest.point_id for point in copy.points() if point.manifest} == {world.full, world.middle, world.top}


def test_what_is_on_record_of_a_sent_point_is_enough_to_bring_it_back(world: Copied) -> None:
    world.register()
    world.run()
    row, point = world.on_copy()[world.top], world.sealed.row(world.database, world.top)
    assert (row.folder, row.manifest_digest, row.parents) == (point.folder, point.manifest_digest, [world.middle])
    assert (row.domain_id, row.domain_name, row.verdict) == (point.domain_id, point.domain_name, point.verdict)
    assert row.checked_by == "content"
    assert None not in (row.sent_at, row.checked_at, row.size_bytes)


def test_a_point_that_is_asked_for_goes_with_what_it_stands_on(world: Copied) -> None:
    world.register()
    assert sent_by(world.run(CopyAction.send, world.middle)) == [world.full, world.middle]


def test_a_point_that_came_later_is_sent_later(world: Copied) -> None:
    world.register()
    world.run()
    later = world.sealed.seal((4, 0, 4096), database=world.database)
    assert sent_by(world.run()) == [later]


def test_a_damaged_point_keeps_back_what_stands_on_it_and_nothing_else(world: Copied) -> None:
    """Its damage is found by reading it, here for the first time."""
    world.register()
    world.sealed.damage(world.middle)
    job = world.run()
    assert (job.state, error_of(job)["code"]) == ("failed", "point_damaged")
    assert world.full in whole(world)
    assert world.middle not in whole(world)


def test_a_point_that_is_known_to_be_bad_is_left_with_the_reason(world: Copied) -> None:
    world.register()
    with world.database.write() as session:
        now = removal.turn_of(session, world.sealed.id)
        points.add_proofs(session, world.middle, [Proof(ProofKind.bytes, False, {}, None)], now)
        points.set_state(session, world.middle, PointState.damaged, now=now)
    job = world.run()
    assert (job.state, sent_by(job)) == ("succeeded", [world.full])
    assert [point["id"] for point in result_of(job)["left"]] == [world.middle, world.top]
    assert all(world.middle in point["detail"] for point in result_of(job)["left"])


def test_a_share_that_is_not_mounted_is_not_begun_anew(world: Copied) -> None:
    world.register()
    world.run(CopyAction.send, world.full)
    shutil.rmtree(world.place)
    world.place.mkdir()
    job = world.run()
    assert error_of(job)["code"] == "copy_not_answering"
    assert list(world.place.iterdir()) == []


def test_a_folder_with_other_things_is_not_taken(world: Copied) -> None:
    (world.place / "letter.txt").write_text("private")
    world.register()
    assert error_of(world.run())["code"] == "copy_bad"
    assert [path.name for path in world.place.iterdir()] == ["letter.txt"]


def test_a_copy_keeps_the_pace_that_it_is_given(world: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    real = Hand.set_pace

    def set_pace(hand: Hand, pace: int | None) -> None:
        asked.append(pace)
        real(hand, pace)

    monkeypatch.setattr(Hand, "set_pace", set_pace)
    world.register(rate_limit_bytes=512 << 20)
    world.run(CopyAction.send, world.full)
    world.run(CopyAction.send, world.middle, rate_limit_bytes=1 << 30)
    assert asked == [512 << 20, 1 << 30]


# --- what dies ----------------------------------------------------------------------------------------


def killing_at(number: int) -> Any:
    """The courier is killed when it is asked for its n-th step."""
    count = 0
    real = Courier._call

    def call(courier: Courier, step: str, *arguments: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == number and courier.hand.child_pid is not None:
            os.kill(courier.hand.child_pid, signal.SIGKILL)
        return real(courier, step, *arguments)

    return call


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_courier_that_is_killed_is_followed_by_another(world: Copied, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Courier, "_call", killing_at(number))
    world.register()
    job = world.run()
    assert (job.state, len(sent_by(job))) == ("succeeded", 3)


class WorkerDies(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_job_whose_worker_dies_is_tried_again_and_continues(world: Copied, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    world.register()
    job_id = world.ask()
    real, count = Courier.send, [0]

    def send(courier: Courier, *arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            # The point was begun, and the death comes before its end is on record.
            real(courier, *arguments, **options)
            raise WorkerDies
        return real(courier, *arguments, **options)

    run = world.scene.claim()
    with monkeypatch.context() as patched:
        patched.setattr(Courier, "send", send)
        with pytest.raises(WorkerDies):
            Copy(world.scene.settings.state_dir).run(run, world.scene.ours)
    assert len(whole(world)) == at - 1
    assert list(world.states().values()).count("sending") == 1
    world.scene.die_in(run)
    world.scene.recovery().recover(job_id)
    world.scene.execution.execute(world.scene.claim())
    job = world.scene.job(job_id)
    assert job.state == "succeeded"
    assert whole(world) == {world.full, world.middle, world.top}
    # What was there already was seen, and not sent again.
    assert result_of(job)["points"][0]["sent_bytes"] == 0


def test_a_point_that_is_being_sent_is_not_removed(world: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    world.register()
    why: list[Any] = []
    real = Courier.send

    def send(courier: Courier, *arguments: Any, **options: Any) -> Any:
        if world.states().get(world.top) == "sending" and not why:
            with world.database.read() as session:
                neighbours = removal.Neighbours.of(session, world.sealed.id, {world.sealed.row(world.database, world.top).domain_id})
                why.append(removal.why_it_stays(points.get(session, world.top), neighbours))
        return real(courier, *arguments, **options)

    monkeypatch.setattr(Courier, "send", send)
    job = world.run()
    assert why[0].code == "point_in_use"
    assert why[0].facts["jobs"] == [job.id]
    with world.database.read() as session:
        neighbours = removal.Neighbours.of(session, world.sealed.id, {world.sealed.row(world.database, world.top).domain_id})
        assert removal.why_it_stays(points.get(session, world.top), neighbours) is None


# --- back ---------------------------------------------------------------------------------------------


def test_points_come_back_with_what_they_stand_on(world: Copied) -> None:
    world.register()
    world.run()
    for point_id in (world.full, world.middle, world.top):
        shutil.rmtree(world.sealed.folder(point_id))
    job = world.run(CopyAction.fetch, world.top)
    assert (job.state, sent_by(job)) == ("succeeded", [world.full, world.middle, world.top])
    with world.sealed.opened() as repository:
        assert [point.error for point in repository.points()] == [None] * 3
        answer = repository.call(
            "verify_point", {"folder": world.sealed.manifests[world.top].folder, "checks": ["bytes"], "encrypted": False}
        )
    assert answer["bytes"]["ok"] is True
    with world.database.read() as session:
        assert repositories.get(session, world.sealed.id).import_asked_at is not None


def test_what_is_there_is_not_fetched(world: Copied) -> None:
    world.register()
    world.run()
    shutil.rmtree(world.sealed.folder(world.top))
    fetched = {point["id"]: point["is_there"] for point in result_of(world.run(CopyAction.fetch, world.top))["points"]}
    assert fetched == {world.full: True, world.middle: True, world.top: False}


def test_a_point_that_was_pruned_here_can_be_fetched(world: Copied) -> None:
    world.register()
    world.run()
    asked = {"kind": "prune", "repository": world.sealed.id, "recovery_points": [world.top]}
    with world.database.write() as session:
        queue.ensure_slots(session, f"host:{HOST}:maintenance", 1)
        queue.enqueue(session, NewJob(JobKind.prune.value, None, None, HOST, asked, {}, repository_id=world.sealed.id))
    run = world.scene.claim()
    world.scene.run_by(Prune(), run)
    pruned = world.scene.job(run.claim.job_id).result
    assert pruned is not None
    # What is still elsewhere is told: here nothing holds it there.
    assert [(copy["name"], copy["retained_until"]) for copy in pruned["prune"]["removed"][0]["copies"]] == [("offsite", None)]
    assert not world.sealed.folder(world.top).exists()
    assert world.run(CopyAction.fetch, world.top).state == "succeeded"
    assert world.sealed.folder(world.top).exists()


def test_a_copy_that_is_damaged_is_not_published_here(world: Copied) -> None:
    world.register()
    world.run()
    damage(world.place / world.sealed.manifests[world.middle].folder / "vda.qcow2")
    shutil.rmtree(world.sealed.folder(world.middle))
    job = world.run(CopyAction.fetch, world.top)
    assert error_of(job)["code"] == "copy_damaged"
    assert not world.sealed.folder(world.middle).exists()
    assert world.states()[world.middle] == "damaged"


# --- what is there ------------------------------------------------------------------------------------


def test_a_check_finds_damage_there_and_the_next_send_heals_it(world: Copied) -> None:
    world.register()
    world.run()
    damage(world.place / world.sealed.manifests[world.middle].folder / "vda.qcow2")
    job = world.run(CopyAction.check)
    assert (error_of(job)["code"], sent_by(job)) == ("copy_damaged", [world.full, world.top])
    assert world.states()[world.middle] == "damaged"
    assert sent_by(world.run()) == [world.middle]
    assert world.run(CopyAction.check).state == "succeeded"
    assert world.states()[world.middle] == "whole"


# --- locks --------------------------------------------------------------------------------------------


def test_a_store_that_keeps_its_locks_is_proven_and_its_points_are_retained(world: Copied, keeping: S3Server) -> None:
    world.register_locked(keeping.target(has_lock=True), KEY)
    job = world.run()
    assert job.state == "succeeded"
    assert (result_of(job)["immutability"], world.copy().immutability) == ("immutable", "immutable")
    assert [proof.immutability for proof in world.proofs()] == ["immutable"]
    for point_id in (world.full, world.middle, world.top):
        assert world.sealed.row(world.database, point_id).retained_until == world.on_copy()[point_id].locked_until is not None


def test_the_lock_of_a_base_is_lengthened_to_that_of_its_last_increment(world: Copied, keeping: S3Server) -> None:
    world.register_locked(keeping.target(has_lock=True), KEY)
    world.run(CopyAction.send, world.middle)
    before = world.on_copy()[world.full].locked_until
    assert before is not None
    with world.database.write() as session:
        copies.change(session, copies.get(session, world.sealed.id, world.copy_id), {"retain_days": 60}, removal.turn_of(session, "x"))
    job = world.run()
    assert result_of(job)["lengthened"] == 2
    ends = {point_id: row.locked_until for point_id, row in world.on_copy().items()}
    assert ends[world.full] == ends[world.middle] == ends[world.top]
    assert (ends[world.full] or before) >= before + timedelta(days=29)


def test_a_store_that_only_claims_locks_is_found_out_and_retains_nothing(world: Copied, lying: S3Server) -> None:
    world.register_locked(lying.target(), KEY)
    job = world.run()
    assert (job.state, world.copy().immutability) == ("succeeded", "claims_only")
    assert world.run(CopyAction.check).state == "succeeded"
    assert world.sealed.row(world.database, world.full).retained_until is None
    (proof,) = world.proofs()
    assert {answer["attack"] for answer in proof.answers if not answer["holds"]} >= {"delete", "overwrite", "shorten"}
    # It would put the request for a longer lock in the place of the object.
    assert "lengthened" not in result_of(job)


def test_a_store_that_stops_to_keep_its_locks_retains_nothing_from_then_on(world: Copied, keeping: S3Server, lying: S3Server) -> None:
    world.register_locked(keeping.target(has_lock=True), KEY)
    world.run()
    assert world.sealed.row(world.database, world.full).retained_until is not None
    with world.database.write() as session:
        copies.change(session, copies.get(session, world.sealed.id, world.copy_id), {"target": lying.target(), "opened_at": None}, None)  # type: ignore[arg-type] # no proof gets due
    world.run(CopyAction.prove)
    assert world.copy().immutability == "claims_only"
    assert world.sealed.row(world.database, world.full).retained_until is None
    assert [proof.immutability for proof in sorted(world.proofs(), key=lambda proof: proof.at)] == ["immutable", "claims_only"]


def test_a_folder_that_should_lock_is_sent_to_without_locks(world: Copied) -> None:
    world.register(retain_days=30)
    job = world.run()
    assert (job.state, world.copy().immutability) == ("succeeded", "none")
    assert world.on_copy()[world.full].locked_until is None
    assert [phase["outcome"] for phase in job.phases] == ["warning", "ok"]


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_older_form_of_a_point_that_was_merged_since_comes_back_and_is_on_record(world: Copied) -> None:
    """The repository has lost the points, and the copy got them before the merge."""
    world.register()
    world.run()
    older = {point_id: row.manifest_digest for point_id, row in world.on_copy().items()}
    merge = world.merge(world.full)
    assert (merge.state, world.sealed.row(world.database, world.middle).parents) == ("succeeded", [])
    assert sent_by(world.run()) == [], "what the guest sees is there already"
    for point_id in (world.middle, world.top):
        shutil.rmtree(world.sealed.folder(point_id))
    world.imports()
    assert world.sealed.row(world.database, world.middle).state == "missing"
    assert world.run(CopyAction.fetch, world.top).state == "succeeded"
    result = world.imports()
    assert (result.refused, result.incomplete) == ([], [])
    row = world.sealed.row(world.database, world.middle)
    assert (row.state, row.manifest_digest, row.parents) == ("sealed", older[world.middle], [world.full])
    assert world.sealed.row(world.database, world.full).state == "sealed"
    assert world.is_good(world.top)


def test_a_manifest_that_was_never_sent_is_not_taken_for_an_older_form(world: Copied) -> None:
    world.register()
    world.run()
    world.merge(world.full)
    shutil.rmtree(world.sealed.folder(world.middle))
    world.imports()
    shutil.copytree(world.place / world.sealed.manifests[world.middle].folder, world.sealed.folder(world.middle))
    world.sealed.change_manifest(world.middle, sign_again=True, verdict="application")
    (refused,) = world.imports().refused
    assert refused["code"] == "signature_wrong"


# --- removed there ------------------------------------------------------------------------------------


def objects(world: Copied) -> set[str]:
    """The names of the folders of points that have any file on the copy."""
    return {file.parent.name for file in (world.place / "domains").rglob("*") if file.is_file()}


def folder_of(world: Copied, point_id: str) -> str:
    return world.sealed.folder(point_id).name


def test_a_named_point_leaves_nothing_there_and_the_others_are_whole(world: Copied) -> None:
    world.register()
    world.run()
    job = world.run(CopyAction.remove, world.top)
    assert (job.state, sent_by(job)) == ("succeeded", [world.top])
    assert whole(world) == {world.full, world.middle}
    assert objects(world) == {folder_of(world, each) for each in (world.full, world.middle)}
    assert world.run(CopyAction.check).state == "succeeded"
    assert sent_by(world.run()) == [world.top], "the repository has it, and it is sent again when that is asked for"


def test_what_the_repository_removed_goes_by_the_rules_of_the_copy(world: Copied) -> None:
    world.register(retention={"keep_last": 1})
    world.run()
    world.merge(world.full)
    assert sent_by(world.run(CopyAction.remove)) == [], "what the increments there stand on stays"
    new = world.sealed.seal((5, 0, 4096), database=world.database, is_full=True)
    world.run()
    world.prune(world.middle, world.top)
    job = world.run(CopyAction.remove)
    assert (job.state, sent_by(job)) == ("succeeded", [world.top, world.middle, world.full])
    assert (whole(world), objects(world)) == ({new}, {folder_of(world, new)})


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_was_not_noted_as_sent_goes_after_a_prune_only_if_a_part_is_missing(world: Copied, is_whole: bool) -> None:
    """The worker died before it noted the last point. All of it may have arrived."""
    world.register()
    world.run()
    with world.database.write() as session:
        session.execute(update(CopiedPoint).where(CopiedPoint.point_id == world.top).values(state="sending", sent_at=None, checked_at=None))
    if not is_whole:
        (world.place / world.sealed.manifests[world.top].folder / "manifest.json").unlink()
    world.prune(world.top)
    assert world.run(CopyAction.remove).state == "succeeded"
    stays = {world.full, world.middle} | ({world.top} if is_whole else set())
    assert whole(world) == stays
    assert objects(world) == {folder_of(world, each) for each in stays}


@pytest.mark.parametrize("died", [0, 1, 2, 3])
def test_a_removal_that_dies_leaves_no_half_point_that_counts_and_the_next_attempt_finishes(
    world: Copied, monkeypatch: pytest.MonkeyPatch, died: int
) -> None:
    """After so many objects of the point."""
    world.register()
    world.run()
    job_id = world.ask(CopyAction.remove, world.top)
    there = world.place / world.sealed.manifests[world.top].folder

    def remove(courier: Courier, folder: str) -> Any:
        order = sorted(there.rglob("*.*"), key=lambda file: (file.name != "manifest.json", file.name != "manifest.sig", file.name))
        for file in order[:died]:
            file.unlink()
        raise WorkerDies

    run = world.scene.claim()
    with monkeypatch.context() as patched:
        patched.setattr(Courier, "remove", remove)
        with pytest.raises(WorkerDies):
            Copy(world.scene.settings.state_dir).run(run, world.scene.ours)
    assert whole(world) == {world.full, world.middle}
    world.scene.die_in(run)
    world.scene.recovery().recover(job_id)
    world.scene.execution.execute(world.scene.claim())
    assert world.scene.job(job_id).state == "succeeded"
    assert folder_of(world, world.top) not in objects(world)
    assert set(world.states()) == {world.full, world.middle}


def test_a_lock_that_the_store_shows_refuses_the_removal_and_nothing_is_touched(world: Copied, keeping: S3Server) -> None:
    """Also where nothing is on record of the lock."""
    world.register_locked(keeping.target(has_lock=True), KEY)
    world.run()
    with world.database.write() as session:
        session.execute(update(CopiedPoint).values(locked_until=None))
    job = world.run(CopyAction.remove, world.top)
    assert (job.state, error_of(job)["code"]) == ("failed", "copy_locked")
    row = world.on_copy()[world.top]
    assert (row.state, row.locked_until is not None) == ("whole", True)
    assert world.run(CopyAction.check).state == "succeeded"


def test_a_bucket_with_versions_keeps_no_earlier_contents_of_what_was_removed(world: Copied, keeping: S3Server) -> None:
    target = keeping.target(has_lock=True)
    world.register(target, key=KEY)
    world.run()
    job = world.run(CopyAction.remove, world.full, world.middle, world.top)
    assert (job.state, [point["left"] for point in result_of(job)["points"]]) == ("succeeded", [0, 0, 0])
    versions = keeping.client().list_object_versions(Bucket=target["bucket"], Prefix="copies/one/domains/")
    assert not versions.keys() & {"Versions", "DeleteMarkers"}
