"""A verify finds a signature that was removed, of the point and of those below. The bytes are good then, and the point is not."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import PointUnsigned
from service.model.requests import RestoreRequest
from service.records import orders
from service.repository.signing import SigningKey
from tests.jobs.test_verify import World
from tests.scenes.host import error_of
from tests.scenes.sealed import Sealed


@pytest.fixture
def world(three_points: Sealed, database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path, three_points)


def signature(world: World, at: int) -> Path:
    return world.sealed.folder(world.sealed.points[at]) / "manifest.sig"


def states(world: World) -> list[str]:
    return [world.state(point) for point in world.sealed.points]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_removed_signature_makes_its_point_and_all_that_stand_on_it_unsigned(world: World, at: int) -> None:
    top = world.sealed.points[-1]
    signature(world, at).unlink()
    job = world.verify(top, checks=["bytes"])
    error = error_of(job)
    assert (job.state, error["code"]) == ("failed", "point_unsigned")
    assert error["facts"]["folder"] == world.sealed.manifests[world.sealed.points[at]].folder
    assert error["facts"]["next_good"] == (world.sealed.points[at - 1] if at else None)
    assert world.proofs(top) == [("bytes", True), ("signature", False)]
    assert states(world) == ["sealed"] * at + ["damaged"] * (3 - at)


def test_such_a_point_is_restored_only_if_the_request_accepts_that(world: World) -> None:
    top = world.sealed.points[-1]
    signature(world, 0).unlink()
    world.verify(top, checks=["bytes"])
    with world.database.write() as session:
        with pytest.raises(PointUnsigned):
            orders.restorable_point(session, RestoreRequest(recovery_point=top, mode="files"))  # type: ignore[arg-type]
        accepted = RestoreRequest(recovery_point=top, mode="files", accept_unsigned=True)  # type: ignore[arg-type]
        assert orders.restorable_point(session, accepted)[0].id == top


@pytest.mark.parametrize("at", [0, 2])
def test_a_signature_by_another_key_than_the_manifest_names_is_as_none(world: World, at: int, tmp_path: Path) -> None:
    """It fits the manifest: who may write in the repository can make it."""
    manifest = signature(world, at).with_name("manifest.json").read_bytes()
    signature(world, at).write_text(SigningKey.of_service(tmp_path / "a stranger").sign(manifest))
    assert error_of(world.verify(world.sealed.points[-1], checks=["bytes"]))["code"] == "point_unsigned"


def test_a_signature_that_was_put_back_makes_the_points_good_again(world: World) -> None:
    top, removed = world.sealed.points[-1], signature(world, 0)
    text = removed.read_text()
    removed.unlink()
    world.verify(top, checks=["bytes"])
    removed.write_text(text)
    jobs: list[Job] = [world.verify(point, checks=["bytes"]) for point in world.sealed.points]
    assert [job.state for job in jobs] == ["succeeded"] * 3
    assert states(world) == ["sealed"] * 3
    assert ("signature", False) not in world.proofs(top)


def test_a_signed_point_gets_no_proof_that_says_nothing_new(world: World) -> None:
    top = world.sealed.points[-1]
    world.verify(top, checks=["bytes"])
    assert world.proofs(top) == [("bytes", True)]


def test_damaged_bytes_are_told_before_a_signature_that_is_missing(world: World) -> None:
    top = world.sealed.points[-1]
    world.sealed.damage(top)
    signature(world, 0).unlink()
    assert error_of(world.verify(top, checks=["bytes"]))["code"] == "point_damaged"
