"""The watch over the repositories of a host: real processes look at real folders, and one that does not answer delays nobody."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from service.db import documents
from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import RecoveryPoint
from service.errors import RecoveryPointNotFound
from service.records import removal, repositories
from service.repository.store import Repository, RepositoryLook, StoredPoint
from service.worker import repository_import
from service.worker.repository_watch import RepositoryWatch
from tests.scenes.plant import Plant, wait_for
from tests.scenes.sealed import Sealed
from tests.scenes.watched import Watched

MIB = 1 << 20
SILENCE_S = 0.5


class Hanging(Repository):
    """Its process is stopped while it looks, as one that waits for a dead server."""

    children: list[int]
    hangs_at: str
    is_hanging: threading.Event

    def look(self) -> RepositoryLook:
        if not self.path.endswith(self.hangs_at):
            return super().look()
        seen = super().look()
        child = self.hand._child
        assert child is not None
        os.kill(child.process.pid, signal.SIGSTOP)
        self.children.append(child.process.pid)
        self.is_hanging.set()
        super().look()
        return seen


def hanging_at(name: str) -> type[Hanging]:
    return type("HangingThere", (Hanging,), {"children": [], "hangs_at": name, "is_hanging": threading.Event()})


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(sqlite_database, tmp_path)
    yield made
    made.stopping.set()
    have_ended = [watch.stop(20) for watch in made.watches]
    assert all(have_ended)


@pytest.fixture
def sealed(world: Watched) -> Sealed:
    made = Sealed(world.folder / "nas")
    for writes in ((1, 0, MIB), (2, MIB, MIB)):
        made.seal(writes)
    return made


# --- the first look ---------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_becomes_the_repository(world: Watched) -> None:
    registered = world.register("new")
    world.look("new")
    row = world.row("new")
    assert (row.state, row.state_error, row.format_version, row.check_asked_at) == ("ready", None, 1, None)
    assert row.free_bytes
    assert json.loads((world.folder / "new" / "repository.json").read_text())["id"] == registered


def test_a_repository_that_is_there_keeps_its_id(world: Watched, sealed: Sealed) -> None:
    registered = world.register("nas")
    world.look("nas")
    assert (world.row("nas").id, world.row(registered).id, world.row("nas").state) == (sealed.id, sealed.id, "ready")


def test_a_folder_with_something_else_is_left_as_it_is(world: Watched) -> None:
    (world.folder / "photos").mkdir()
    (world.folder / "photos" / "cat.jpg").write_text("cat")
    world.register("photos")
    world.look("photos")
    assert (world.row("photos").state, world.row("photos").state_error["code"]) == ("bad", "repository_bad")  # type: ignore[index]
    assert [file.name for file in (world.folder / "photos").iterdir()] == ["cat.jpg"]


def test_a_repository_that_is_registered_twice_says_so(world: Watched, sealed: Sealed) -> None:
    (world.folder / "same").symlink_to(sealed.path)
    world.register("nas")
    world.look("nas")
    world.register("again", world.folder / "same")
    world.look("again")
    assert world.row("again").state_error["code"] == "repository_taken"  # type: ignore[index]


# --- later looks ------------------------------------------------------------------------------------


def test_a_folder_that_is_empty_later_is_gone_and_is_not_made_a_repository(world: Watched) -> None:
    """A share that is not mounted."""
    world.register("new")
    world.look("new")
    (world.folder / "new" / "repository.json").unlink()
    world.look("new")
    assert world.row("new").state == "gone"
    assert list((world.folder / "new").iterdir()) == []


def test_a_repository_that_comes_back_is_ready_again(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.look("nas")
    sealed.path.rename(world.folder / "away")
    world.look("nas")
    assert (world.row("nas").state, world.row("nas").format_version) == ("gone", 1)
    (world.folder / "away").rename(sealed.path)
    world.look("nas")
    assert (world.row("nas").state, world.row("nas").state_error) == ("ready", None)


def test_a_repository_below_its_reserve_is_full(world: Watched) -> None:
    world.register("small", reserve_bytes=1 << 60)
    world.look("small")
    row = world.row("small")
    assert (row.state, row.state_error["code"]) == ("full", "repository_full")  # type: ignore[index]
    assert row.free_bytes is not None


def test_a_look_is_made_when_it_is_due_or_asked_for(world: Watched) -> None:
    world.register("new")
    watch = world.watch(every_s=3600.0)
    world.look("new", watch=watch)
    seen_at = world.row("new").looked_at
    watch.look_at_due()
    assert watch.stop(20)
    assert world.row("new").looked_at == seen_at
    world.ask(repositories.ask_check, "new")
    world.look("new", watch=watch)
    assert world.row("new").check_asked_at is None


def test_a_worker_that_lost_its_host_writes_nothing(world: Watched) -> None:
    world.register("new")
    watch = world.watch(is_mine=lambda _: False)
    watch.look_at_due()
    assert watch.stop(20)
    assert world.row("new").looked_at is None


# --- one that hangs ---------------------------------------------------------------------------------


def test_a_repository_that_hangs_delays_no_other_one(world: Watched) -> None:
    world.register("dead")
    world.register("new")
    world.look("dead", "new")
    hanging = hanging_at("dead")
    watch = world.watch(every_s=0.0, silence_s=20.0, open_repository=hanging)
    watch.look_at_due()
    assert hanging.is_hanging.wait(20)
    seen: set[datetime | None] = set()

    def is_seen_again_and_again() -> bool:
        watch.look_at_due()
        seen.add(world.row("new").looked_at)
        return len(seen) > 3

    wait_for(is_seen_again_and_again, "looks at the other one")
    assert len(hanging.children) == 1


def test_a_repository_that_hangs_is_said_not_to_answer_and_its_process_is_ended(world: Watched) -> None:
    world.register("dead")
    world.look("dead")
    hanging = hanging_at("dead")
    world.look("dead", watch=world.watch(silence_s=SILENCE_S, open_repository=hanging))
    row = world.row("dead")
    assert (row.state, row.state_error["code"]) == ("not_answering", "repository_not_answering")  # type: ignore[index]
    wait_for(lambda: not any(Path("/proc", str(child)).exists() for child in hanging.children), "the end of the process")


def test_a_stop_does_not_wait_for_a_repository_that_hangs(world: Watched) -> None:
    world.register("dead")
    world.look("dead")
    hanging = hanging_at("dead")
    watch = world.watch(silence_s=3600.0, open_repository=hanging)
    watch.look_at_due()
    assert hanging.is_hanging.wait(20)
    world.stopping.set()
    assert watch.stop()
    assert not any(Path("/proc", str(child)).exists() for child in hanging.children)


def test_a_worker_looks_at_its_repositories_and_stops_at_once_while_one_hangs(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(sqlite_database, tmp_path)
    world = Watched(sqlite_database, tmp_path)
    hanging = hanging_at("dead")
    world.register("dead")
    world.register("new")
    defaults = RepositoryWatch.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(RepositoryWatch.__init__, "__kwdefaults__", defaults | {"open_repository": hanging})
    worker = plant.start()
    wait_for(lambda: world.row("new").state == "ready", "the look")
    assert hanging.is_hanging.wait(20)
    begin = time.monotonic()
    plant.close()
    assert time.monotonic() - begin < 5
    assert worker.problem() is None or worker.is_stopping


# --- import -----------------------------------------------------------------------------------------


def test_an_import_into_an_empty_database_rebuilds_the_list(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    result = world.import_points("nas")
    assert (result["added"], result["refused"], result["error"]) == (2, [], None)
    rows = [sealed.row(world.database, point) for point in sealed.points]
    assert [(row.state, row.verdict, row.domain_name, row.job_id) for row in rows] == [("sealed", "filesystem", "db1", None)] * 2
    assert [row.parents for row in rows] == [[], sealed.points[:1]]
    assert [row.folder for row in rows] == [sealed.manifests[point].folder for point in sealed.points]


def test_an_import_again_changes_nothing(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    result = world.import_points("nas")
    assert (result["added"], result["known"], result["missing"]) == (0, 2, 0)


def test_a_point_whose_folder_is_gone_is_missing_until_it_is_back(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    folder = sealed.folder(sealed.points[1])
    folder.rename(world.folder / "away")
    assert (world.import_points("nas")["missing"], world.states(sealed)) == (1, ["sealed", "missing"])
    (world.folder / "away").rename(folder)
    assert (world.import_points("nas")["returned"], world.states(sealed)) == (1, ["sealed", "sealed"])


def test_a_manifest_that_was_changed_is_not_put_on_record(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    sealed.change_manifest(sealed.points[1], sign_again=False, verdict="application")
    result = world.import_points("nas")
    assert (result["added"], [refused["code"] for refused in result["refused"]]) == (1, ["signature_wrong"])


@pytest.mark.parametrize("sign_again", [False, True])
def test_a_manifest_that_was_changed_later_makes_its_point_damaged(world: Watched, sealed: Sealed, sign_again: bool) -> None:
    world.register("nas")
    world.import_points("nas")
    sealed.change_manifest(sealed.points[1], sign_again=sign_again, verdict="application")
    result = world.import_points("nas")
    assert ([refused["code"] for refused in result["refused"]], world.states(sealed)) == (["signature_wrong"], ["sealed", "damaged"])
    assert sealed.row(world.database, sealed.points[1]).verdict == "filesystem"


def test_a_manifest_that_was_changed_later_makes_all_points_damaged_that_stand_on_it(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    sealed.change_manifest(sealed.points[0], sign_again=True, verdict="application")
    world.import_points("nas")
    assert world.states(sealed) == ["damaged", "damaged"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "stillpoint-point", "v": 1}'])
def test_a_manifest_that_cannot_be_read_is_named_and_stops_nothing(world: Watched, sealed: Sealed, text: str) -> None:
    world.register("nas")
    folder = sealed.folder(sealed.points[1])
    (folder / "manifest.json").write_text(text)
    (folder / "manifest.sig").unlink()
    result = world.import_points("nas")
    assert (result["added"], [refused["folder"] for refused in result["refused"]]) == (
        1,
        [sealed.manifests[sealed.points[1]].folder],
    )


@pytest.mark.parametrize(("at", "states"), [(0, ["damaged", "damaged"]), (1, ["sealed", "damaged"])])
def test_a_point_without_a_signature_is_put_on_record_and_not_called_good(
    world: Watched, sealed: Sealed, at: int, states: list[str]
) -> None:
    world.register("nas")
    signature = sealed.folder(sealed.points[at]) / "manifest.sig"
    sealed.change_manifest(sealed.points[at], sign_again=False, verdict="application")
    signature.unlink()
    result = world.import_points("nas")
    assert (result["added"], result["unsigned"], world.states(sealed)) == (2, 1, states)
    assert signatures(world, sealed)[at] == (False, None)
    before = [sealed.row(world.database, point).proofs for point in sealed.points]
    world.import_points("nas")
    assert [sealed.row(world.database, point).proofs for point in sealed.points] == before


def test_a_point_whose_signature_is_put_back_is_good_after_the_next_import(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    signature = sealed.folder(sealed.points[0]) / "manifest.sig"
    signature.rename(world.folder / "away")
    world.import_points("nas")
    assert world.states(sealed) == ["damaged", "damaged"]
    (world.folder / "away").rename(signature)
    world.import_points("nas")
    assert world.states(sealed) == ["sealed", "sealed"]


def test_the_record_of_an_imported_point_names_the_key_that_signed_it(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    assert signatures(world, sealed) == [(True, sealed.signing_key.id)] * 2


def test_a_point_that_was_on_record_is_known_by_its_digest_and_needs_no_signature(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    with world.database.write() as session:
        rows = session.execute(update(table_of(RecoveryPoint)).values(proofs=[]).returning(*table_of(RecoveryPoint).columns)).all()
        documents.write_points(session.connection(), rows)
    (sealed.folder(sealed.points[0]) / "manifest.sig").unlink()
    assert (world.import_points("nas")["unsigned"], world.states(sealed)) == (1, ["sealed", "sealed"])


def signatures(world: Watched, sealed: Sealed) -> list[tuple[bool | None, str | None]]:
    proofs = [(sealed.row(world.database, point).proofs or [])[-1] for point in sealed.points]
    return [(proof["ok"], proof["facts"]["signed_by"]) for proof in proofs]


def test_a_point_that_was_copied_to_another_folder_is_refused(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    folder = sealed.folder(sealed.points[0])
    shutil.copytree(folder, folder.with_name("copy"))
    result = world.import_points("nas")
    assert (result["added"], [refused["code"] for refused in result["refused"]]) == (2, ["point_damaged"])


def test_an_import_from_a_repository_that_is_gone_says_so_and_loses_no_point(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.import_points("nas")
    sealed.path.rename(world.folder / "away")
    result = world.import_points("nas")
    assert (result["error"]["code"], result["missing"], world.states(sealed)) == ("repository_gone", 0, ["sealed", "sealed"])


class AwayAtTheFirstList(Repository):
    """It is there again at every look."""

    lists = 0

    def points(self) -> list[StoredPoint]:
        type(self).lists += 1
        if self.lists > 1:
            return super().points()
        manifests = sorted(Path(self.path).rglob("manifest.json"))
        manifests[0].rename(manifests[0].with_name("hidden"))
        shutil.move(str(manifests[1].parent), Path(self.path, "hidden"))
        try:
            return super().points()
        finally:
            shutil.move(Path(self.path, "hidden"), str(manifests[1].parent))
            manifests[0].with_name("hidden").rename(manifests[0])


def test_a_repository_that_was_away_for_a_moment_of_the_import_loses_no_point(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    world.look("nas")
    world.import_points("nas")
    world.ask(repositories.ask_import, "nas")
    world.watch(open_repository=AwayAtTheFirstList).look_at_due()
    wait_for(lambda: world.row("nas").import_asked_at is None, "the import")
    assert world.states(sealed) == ["sealed", "sealed"]


def test_a_point_whose_parent_is_not_there_is_named(world: Watched, sealed: Sealed) -> None:
    world.register("nas")
    shutil.rmtree(sealed.folder(sealed.points[0]))
    result = world.import_points("nas")
    assert (result["added"], result["incomplete"]) == (1, [{"point": sealed.points[1], "missing": sealed.points[:1]}])


def test_a_point_that_is_removed_while_the_folder_is_listed_does_not_come_back(
    world: Watched, sealed: Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.register("nas")
    world.import_points("nas")
    listed, top = repository_import.listed_twice, sealed.points[1]

    def removed_meanwhile(repository: Repository) -> list[StoredPoint]:
        seen = listed(repository)
        with world.database.write() as session:
            now = removal.turn_of(session, sealed.id)
            removal.give_up(session, top, now=now, facts={})
            removal.take_off_the_list(session, top, now=now, facts={})
        return seen

    monkeypatch.setattr(repository_import, "listed_twice", removed_meanwhile)
    assert world.import_points("nas")["added"] == 0
    with pytest.raises(RecoveryPointNotFound):
        sealed.row(world.database, top)
    # A person has put its folder back: from now on it is an import as any other.
    monkeypatch.setattr(repository_import, "listed_twice", listed)
    assert world.import_points("nas")["added"] == 1
