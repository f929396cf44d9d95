"""The job kind verify: what it finds becomes proofs of the point, and a repository that cannot be read proves nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import JobCancelled, KeyUnusable, RepositoryNotAnswering, StillpointError
from service.jobs.verify import Verify, are_good
from service.records import points
from service.repository.store import Repository
from tests.scenes.host import error_of, phases_of
from tests.scenes.sealed import DOMAIN, Sealed
from tests.scenes.verified import Verifying

MIB = 1 << 20


class World(Verifying):
    """A host with a repository of one full point and two increments."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        super().__init__(database, folder, made.copied(folder / "repository"))
        self.sealed.register(database)
        self.sealed.list_all(database)

    def verify_with(self, answers: "Answers", point_id: str, **request: Any) -> Job:
        """With a repository that answers what the test says, instead of one that the hand reads."""
        self.use(Verify(open_repository=answers.opened))
        return self.verify(point_id, **request)

    def proofs(self, point_id: str) -> list[tuple[str, bool | None]]:
        return [(proof["kind"], proof["ok"]) for proof in self.sealed.row(self.database, point_id).proofs or ()]

    def state(self, point_id: str) -> str:
        return self.sealed.row(self.database, point_id).state


class Answers(Repository):
    """`answers`: the document of each check, or an error that the hand raises."""

    def __init__(self, sealed: Sealed, **answers: dict[str, Any] | StillpointError) -> None:
        super().__init__(str(sealed.path), sealed.id)
        self.answers: dict[str, Any] = {"bytes": {"ok": True, "faults": []}, **answers}
        self.paces: list[int | None] = []

    def opened(self, *_: object, **options: Any) -> "Answers":
        self.safe_point = options["safe_point"]
        self.hand.set_pace = self.paces.append  # type: ignore[assignment, method-assign]
        return self

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        if step != "verify_point":
            return super().call(step, arguments, **options)
        (check,) = arguments["checks"]
        answer = self.answers[check]
        if isinstance(answer, StillpointError):
            raise answer
        return {check: answer}


@pytest.fixture
def world(three_points: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, three_points)


# --- a good point -----------------------------------------------------------------------------------


def test_a_good_point_gets_a_proof_of_each_check(world: World) -> None:
    top = world.sealed.points[-1]
    job = world.verify(top)
    assert job.state == "succeeded"
    # The disk of this world has no filesystem.
    assert world.proofs(top) == [("bytes", True), ("structure", True), ("filesystem", None)]
    assert [name for name, _ in phases_of(job)] == ["checksums", "structure", "filesystem"]
    assert world.state(top) == "sealed"


def test_every_file_of_the_chain_is_read(world: World) -> None:
    first, _, top = world.sealed.points
    world.verify(top, checks=["bytes"])
    world.verify(first, checks=["bytes"])
    files = {point: (world.sealed.row(world.database, point).proofs or [])[0]["facts"]["files"] for point in (first, top)}
    assert files[top] == 3 * files[first]


def test_bytes_are_read_also_where_they_were_not_asked_for(world: World) -> None:
    top = world.sealed.points[-1]
    world.verify_with(Answers(world.sealed, structure={"ok": True, "faults": []}), top, checks=["structure"])
    assert world.proofs(top) == [("bytes", True), ("structure", True)]


def test_a_verify_keeps_its_pace(world: World) -> None:
    answers = Answers(world.sealed)
    world.verify_with(answers, world.sealed.points[-1], checks=["bytes"], rate_limit_bytes=4096)
    # Of every process that reads.
    assert set(answers.paces) == {4096}


# --- a point that is not good -----------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("file", ["vda.qcow2", "vda.blocks", "domain.xml"])
def test_one_bit_anywhere_in_the_chain_makes_the_point_damaged(world: World, at: int, file: str) -> None:
    top = world.sealed.points[-1]
    world.sealed.damage(world.sealed.points[at], file)
    job = world.verify(top)
    assert (job.state, error_of(job)["code"], world.state(top)) == ("failed", "point_damaged", "damaged")
    assert error_of(job)["facts"]["path"].endswith(f"{world.sealed.manifests[world.sealed.points[at]].folder}/{file}")
    assert world.proofs(top) == [("bytes", False)]
    assert phases_of(job) == [("checksums", "failed")]


def test_a_damaged_point_names_the_next_good_one(world: World) -> None:
    _, second, top = world.sealed.points
    world.sealed.damage(top)
    assert error_of(world.verify(top))["facts"]["next_good"] == second


@pytest.mark.parametrize(("at", "good"), [(0, 0), (1, 1)])
def test_damage_in_a_parent_is_put_on_the_parent_and_on_all_that_stand_on_it(world: World, at: int, good: int) -> None:
    top = world.sealed.points[-1]
    world.sealed.damage(world.sealed.points[at])
    job = world.verify(top, checks=["bytes"])
    assert [world.state(point) for point in world.sealed.points] == ["sealed"] * good + ["damaged"] * (3 - good)
    assert error_of(job)["facts"]["next_good"] == (world.sealed.points[0] if good else None)
    assert last_sealed(world) == (world.sealed.points[0] if good else None)


def test_a_parent_that_is_missing_spoils_every_point_above_it(world: World) -> None:
    shutil.rmtree(world.sealed.folder(world.sealed.points[0]))
    world.verify(world.sealed.points[-1], checks=["bytes"])
    assert [world.state(point) for point in world.sealed.points] == ["damaged"] * 3


def test_a_point_that_is_whole_again_is_sealed_again(world: World) -> None:
    top = world.sealed.points[-1]
    world.sealed.damage(top)
    world.verify(top, checks=["bytes"])
    world.sealed.damage(top)
    world.verify(top, checks=["bytes"])
    assert (world.state(top), world.proofs(top)) == ("sealed", [("bytes", False), ("bytes", True)])


def test_a_parent_that_is_missing_makes_the_point_damaged(world: World) -> None:
    first, _, top = world.sealed.points
    shutil.rmtree(world.sealed.folder(first))
    job = world.verify(top)
    assert (job.state, world.state(top), world.proofs(top)) == ("failed", "damaged", [("bytes", False)])


def test_a_manifest_that_was_changed_and_not_signed_again_is_found(world: World) -> None:
    top = world.sealed.points[-1]
    world.sealed.change_manifest(top, sign_again=False, verdict="application")
    assert error_of(world.verify(top))["facts"]["path"].endswith("manifest.json")
    assert world.state(top) == "damaged"


def test_a_manifest_that_was_changed_and_signed_again_is_not_the_one_on_record(world: World) -> None:
    top = world.sealed.points[-1]
    world.sealed.change_manifest(top, sign_again=True, verdict="application")
    assert (error_of(world.verify(top))["code"], world.state(top)) == ("point_damaged", "damaged")


def test_a_link_where_a_file_should_be_is_damage(world: World) -> None:
    top = world.sealed.points[-1]
    image = world.sealed.folder(top) / "vda.qcow2"
    image.rename(image.with_name("elsewhere"))
    image.symlink_to("elsewhere")
    assert (error_of(world.verify(top))["code"], world.state(top)) == ("point_damaged", "damaged")


def test_an_image_whose_structure_is_broken_is_damaged(world: World) -> None:
    top = world.sealed.points[-1]
    fault = {"folder": "f", "file": "vda.qcow2", "reason": "corruptions: 3"}
    job = world.verify_with(Answers(world.sealed, structure={"ok": False, "faults": [fault]}), top)
    assert (error_of(job)["code"], world.state(top)) == ("point_damaged", "damaged")
    assert world.proofs(top) == [("bytes", True), ("structure", False)]


def test_a_broken_structure_is_not_forgotten_when_only_the_bytes_are_read_again(world: World) -> None:
    _, second, top = world.sealed.points
    fault = {"folder": world.sealed.manifests[top].folder, "file": "vda.qcow2", "reason": "corruptions: 3"}
    world.verify_with(Answers(world.sealed, structure={"ok": False, "faults": [fault]}), top)
    world.verify_with(Answers(world.sealed), top, checks=["bytes"])
    assert (world.state(top), last_sealed(world)) == ("damaged", second)
    world.verify_with(Answers(world.sealed, structure={"ok": None}), top, checks=["structure"])
    assert (world.state(top), last_sealed(world)) == ("damaged", second), "a look that could tell nothing refutes nothing"


def test_a_broken_structure_that_is_whole_again_makes_the_point_sealed(world: World) -> None:
    top = world.sealed.points[-1]
    fault = {"folder": world.sealed.manifests[top].folder, "file": "vda.qcow2", "reason": "corruptions: 3"}
    world.verify_with(Answers(world.sealed, structure={"ok": False, "faults": [fault]}), top)
    world.verify_with(Answers(world.sealed, structure={"ok": True}), top, checks=["structure"])
    assert (world.state(top), last_sealed(world)) == ("sealed", top)


def last_sealed(world: World) -> str | None:
    with world.database.read() as session:
        last = points.last_sealed(session, DOMAIN, world.sealed.id)
    return last.id if last is not None else None


def test_a_filesystem_with_errors_is_a_proof_and_no_damage(world: World) -> None:
    """The guest had them: the point is exactly what the guest's disk was."""
    top = world.sealed.points[-1]
    disks = {"vda": [{"partition": 1, "type": "ext4", "state": "errors", "detail": ""}]}
    job = world.verify_with(Answers(world.sealed, structure={"ok": True}, filesystem=disks), top)
    assert (job.state, world.state(top)) == ("succeeded", "sealed")
    assert world.proofs(top)[-1] == ("filesystem", False)
    assert phases_of(job)[-1] == ("filesystem", "warning")


@pytest.mark.parametrize(
    ("states", "good"), [(["clean"], True), (["needs_recovery"], True), (["clean", "errors"], False), (["unknown"], None), ([], None)]
)
def test_what_filesystems_say(states: list[str], good: bool | None) -> None:
    assert are_good({"vda": [{"state": state} for state in states]}) is good


# --- what proves nothing ----------------------------------------------------------------------------


def test_a_repository_that_does_not_answer_proves_nothing(world: World) -> None:
    top = world.sealed.points[-1]
    silent = RepositoryNotAnswering(path="/mnt/nas", step="verify_point", silent_s=60.0)
    job = world.verify_with(Answers(world.sealed, bytes=silent), top)
    assert (job.state, error_of(job)["code"]) == ("failed", "repository_not_answering")
    assert (world.state(top), world.proofs(top)) == ("sealed", [])


def test_a_repository_that_is_gone_proves_nothing(world: World) -> None:
    top = world.sealed.points[-1]
    world.sealed.path.rename(world.sealed.path.with_name("unmounted"))
    assert error_of(world.verify(top))["code"] == "repository_gone"
    assert (world.state(top), world.proofs(top)) == ("sealed", [])


def test_another_repository_in_its_place_proves_nothing(world: World) -> None:
    top = world.sealed.points[-1]
    description = world.sealed.path / "repository.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"id": "another"}))
    assert error_of(world.verify(top))["code"] == "repository_bad"
    assert world.state(top) == "sealed"


def test_bytes_are_verified_without_the_key_if_nothing_else_was_asked_for(world: World) -> None:
    top = world.sealed.points[-1]
    no_key = KeyUnusable(key="file:/gone", reason="it is not there")
    opened: list[Any] = []

    def open_repository(path: str, repository_id: str, key: Any, **options: Any) -> Answers:
        opened.append(key)
        answers = Answers(world.sealed, **({"bytes": no_key} if len(opened) == 1 else {}))
        return answers.opened(**options)

    world.use(Verify(open_repository=open_repository))
    assert world.verify(top, checks=["bytes"]).state == "succeeded"
    opened.clear()
    assert error_of(world.verify(top))["code"] == "key_unusable"


def test_a_point_that_is_not_on_record_is_an_error(world: World) -> None:
    assert error_of(world.verify("7f6e3f0c-0000-4000-8000-000000000009"))["code"] == "recovery_point_not_found"


# --- its end ----------------------------------------------------------------------------------------


def test_a_verify_is_cancelled_while_it_reads(world: World) -> None:
    job_id = world.ask(world.sealed.points[-1])
    run = world.scene.claim()
    answers = Answers(world.sealed)
    call = answers.call

    def cancelled_in(step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        run.cancel_requested.set()
        assert answers.safe_point is not None
        with pytest.raises(JobCancelled):
            answers.safe_point()
        return call("look", {"id": world.sealed.id})

    answers.call = cancelled_in  # type: ignore[method-assign]
    world.use(Verify(open_repository=answers.opened))
    world.scene.execution.execute(run)
    assert world.scene.job(job_id).state == "cancelled"


def test_a_worker_that_stops_leaves_the_verify_to_the_next_one(world: World) -> None:
    top = world.sealed.points[-1]
    job_id = world.ask(top)
    run = world.scene.claim()
    run.ends_at = 0.0
    world.scene.execution.execute(run)
    world.scene.die_in(run)
    world.scene.recovery().recover(job_id)
    assert world.scene.job(job_id).state == "queued"
    world.scene.execution.execute(world.scene.claim())
    assert (world.scene.job(job_id).state, world.state(top)) == ("succeeded", "sealed")


def test_a_verify_locks_its_point_and_no_domain(world: World) -> None:
    first, second, _ = world.sealed.points
    job_id = world.ask(first)
    world.ask(second)
    assert world.scene.job(job_id).lock_key == f"point:{first}"
    assert DOMAIN not in str(world.scene.job(job_id).lock_key)


def test_the_stored_bytes_of_an_encrypted_point_are_verified_without_its_key(sqlite_database: Database, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a secret of the tests")
    sealed = Sealed(tmp_path / "repository", key=key)
    verifying = Verifying(sqlite_database, tmp_path, sealed)
    sealed.register(sqlite_database)
    point = sealed.seal((1, 0, MIB), database=sqlite_database)
    key.unlink()
    job = verifying.verify(point, checks=["bytes"])
    assert (job.state, [proof["ok"] for proof in sealed.row(sqlite_database, point).proofs or ()]) == ("succeeded", [True])
    assert phases_of(job) == [("checksums", "warning")]
    sealed.damage(point)
    assert error_of(verifying.verify(point, checks=["bytes"]))["code"] == "point_damaged"
