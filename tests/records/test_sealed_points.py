"""The rows of sealed points: from their manifests, with their proofs, and which of them is good."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Event, RecoveryPoint
from service.errors import RecoveryPointNotFound
from service.model.lifecycle import PointState
from service.model.proofs import KEPT_OF_EACH_KIND, Proof
from service.model.repository import ProofKind
from service.model.windows.well_known_writers import NTDS
from service.records import points, sealed_points
from service.records.domain_controllers import is_controller
from service.records.sealed_points import Imported
from tests.api.world import add_job
from tests.records.test_events import read
from tests.scenes.documents import stale_texts
from tests.scenes.repositories import DB1, a_manifest, add_repository, add_sealed, id_of_point

NOW = datetime(2026, 2, 2, tzinfo=UTC)
BAD = Proof(ProofKind.bytes, ok=False, facts={"reason": "one byte"})
GOOD = Proof(ProofKind.bytes, ok=True)


@pytest.fixture
def nas(database: Database) -> str:
    with database.write() as session:
        return add_repository(session).id


def point(database: Database, name: str) -> RecoveryPoint:
    with database.read() as session:
        return points.get(session, id_of_point(name))


def add_points(database: Database, nas: str, *chains: str) -> None:
    """Each chain is a text of names: a full point, and its increments one after the other."""
    with database.write() as session:
        nights = 0
        for chain in chains:
            parent: str | None = None
            for name in chain.split():
                add_sealed(session, name, nas, parent=parent, nights=nights)
                parent, nights = name, nights + 1


def next_good(database: Database, name: str) -> str | None:
    with database.read() as session:
        return points.next_good(session, points.get(session, id_of_point(name)))


def test_an_imported_point_says_what_its_manifest_says(database: Database, nas: str) -> None:
    with database.write() as session:
        manifest = a_manifest("inc", nas, parent="full", pinned=True, labels={"plan": "nightly"})
        assert sealed_points.import_point(session, manifest, "digest", nas, NOW) is Imported.added
    found = point(database, "inc")
    assert (found.state, found.repository_id, found.folder, found.manifest_digest) == ("sealed", nas, manifest.folder, "digest")
    assert (found.parents, found.pinned, found.labels, found.job_id) == ([id_of_point("full")], True, {"plan": "nightly"}, None)
    assert found.point_in_time_at.isoformat() == manifest.point_in_time_at
    assert found.created_at.isoformat() == manifest.sealed_at, "a point does not look newer because it was imported"
    assert found.disks[0]["stored_bytes"] == 1000
    assert found.left_out == [{"target": "sda", "reason": "kept elsewhere"}]
    assert found.size_bytes == 1032
    (event,) = [event for event in read(database) if event.point_id == found.id]
    assert (event.moved_from, event.moved_to) == (None, "sealed")
    assert stale_texts(database) == []


def test_a_second_import_changes_nothing(database: Database, nas: str) -> None:
    for expected in (Imported.added, Imported.known, Imported.known):
        with database.write() as session:
            assert sealed_points.import_point(session, a_manifest("full", nas), "digest", nas, NOW) is expected
    assert len([event for event in read(database) if event.kind == "recovery_point"]) == 1


def test_a_copy_of_a_repository_does_not_take_its_points(database: Database, nas: str) -> None:
    with database.write() as session:
        add_sealed(session, "full", nas)
        copy = add_repository(session, "copy").id
        assert sealed_points.import_point(session, a_manifest("full", nas), "digest", copy, NOW) is Imported.elsewhere
    assert point(database, "full").repository_id == nas


def test_points_whose_folders_are_gone_are_missing_until_an_import_finds_them_again(database: Database, nas: str) -> None:
    add_points(database, nas, "full inc")
    with database.write() as session:
        assert points.note_missing(session, nas, {id_of_point("full")}, now=NOW) == [id_of_point("inc")]
        assert points.note_missing(session, nas, {id_of_point("full")}, now=NOW) == []
    assert point(database, "inc").state == "missing"
    with database.write() as session:
        assert sealed_points.import_point(session, a_manifest("inc", nas), "digest", nas, NOW) is Imported.returned
    assert (point(database, "inc").state, point(database, "full").state) == ("sealed", "sealed")
    assert stale_texts(database) == []


def test_an_import_does_not_call_a_damaged_point_good(database: Database, nas: str) -> None:
    add_points(database, nas, "full")
    with database.write() as session:
        points.set_state(session, id_of_point("full"), PointState.damaged, now=NOW)
        assert sealed_points.import_point(session, a_manifest("full", nas), "digest", nas, NOW) is Imported.known
    assert point(database, "full").state == "damaged"


def test_a_damaged_point_whose_folder_was_away_is_damaged_when_it_is_back(database: Database, nas: str) -> None:
    add_points(database, nas, "full")
    with database.write() as session:
        points.add_proofs(session, id_of_point("full"), [BAD], NOW)
        points.set_state(session, id_of_point("full"), PointState.missing, now=NOW)
        assert sealed_points.import_point(session, a_manifest("full", nas), "digest", nas, NOW) is Imported.returned
    assert point(database, "full").state == "damaged"


def test_a_state_is_set_once_and_leaves_one_event_with_its_facts(database: Database, nas: str) -> None:
    add_points(database, nas, "full")
    with database.write() as session:
        assert points.set_state(session, id_of_point("full"), PointState.damaged, now=NOW, facts={"job_id": "verify"})
        assert not points.set_state(session, id_of_point("full"), PointState.damaged, now=NOW)
    moves: list[Event] = [event for event in read(database) if event.moved_from == "sealed"]
    assert [(event.moved_to, event.facts) for event in moves] == [("damaged", {"job_id": "verify"})]
    assert stale_texts(database) == []
    with pytest.raises(RecoveryPointNotFound), database.write() as session:
        points.set_state(session, "unknown", PointState.damaged, now=NOW)


def test_a_point_keeps_its_newest_proofs_of_each_kind(database: Database, nas: str) -> None:
    add_points(database, nas, "full")
    with database.write() as session:
        points.add_proofs(session, id_of_point("full"), [Proof(ProofKind.boots, ok=None, job_id="first")], NOW)
        for number in range(KEPT_OF_EACH_KIND + 2):
            points.add_proofs(session, id_of_point("full"), [Proof(ProofKind.bytes, ok=True, facts={"n": number})], NOW)
    proofs: list[Any] = point(database, "full").proofs or []
    assert proofs[0] == {"kind": "boots", "at": "2026-02-02T00:00:00.000000Z", "ok": None, "facts": {}, "job_id": "first"}
    assert [proof["facts"]["n"] for proof in proofs[1:]] == list(range(2, KEPT_OF_EACH_KIND + 2))
    assert stale_texts(database) == []


def test_the_next_increment_stands_on_the_newest_point_that_is_not_known_to_be_bad(database: Database, nas: str) -> None:
    add_points(database, nas, "full inc newest")

    def last() -> str | None:
        with database.read() as session:
            found = points.last_sealed(session, DB1, nas)
        return found.id if found is not None else None

    assert last() == id_of_point("newest")
    with database.write() as session:
        points.set_state(session, id_of_point("newest"), PointState.missing, now=NOW)
        points.add_proofs(session, id_of_point("inc"), [BAD], NOW)
    assert last() == id_of_point("full")
    with database.write() as session:
        points.add_proofs(session, id_of_point("inc"), [GOOD], NOW)
    assert last() == id_of_point("inc")
    with database.read() as session:
        assert points.last_sealed(session, DB1, "another") is None


def test_a_clock_of_a_host_that_went_back_does_not_make_an_older_point_the_last_one(database: Database, nas: str) -> None:
    add_points(database, nas, "full inc")
    with database.write() as session:
        full, inc = (points.get(session, id_of_point(name)) for name in ("full", "inc"))
        full.point_in_time_at = inc.point_in_time_at + timedelta(hours=2)
        full.created_at, inc.created_at = NOW, NOW + timedelta(hours=1)
    with database.read() as session:
        last = points.last_sealed(session, DB1, nas)
        assert last is not None
        assert last.id == id_of_point("inc")


def test_the_last_of_the_points_that_one_import_brought_is_the_newest(database: Database, nas: str) -> None:
    add_points(database, nas, "first second third fourth")
    with database.write() as session:
        for name in ("first", "second", "third", "fourth"):
            points.get(session, id_of_point(name)).created_at = NOW
    with database.read() as session:
        last = points.last_sealed(session, DB1, nas)
        assert last is not None
        assert last.id == id_of_point("fourth")


def test_the_next_good_point_is_the_newest_one_before(database: Database, nas: str) -> None:
    add_points(database, nas, "full1 inc1", "full2 inc2")
    assert next_good(database, "inc2") == id_of_point("full2")
    assert next_good(database, "full2") == id_of_point("inc1"), "inc2 needs the bad point"
    assert next_good(database, "full1") == id_of_point("full2"), "there is none before, and inc1 needs the bad point"


def test_a_point_on_a_bad_or_missing_one_is_not_good(database: Database, nas: str) -> None:
    add_points(database, nas, "full1 inc1", "full2 inc2")
    with database.write() as session:
        points.add_proofs(session, id_of_point("full2"), [BAD], NOW)
    assert next_good(database, "inc2") == id_of_point("inc1")
    with database.write() as session:
        points.set_state(session, id_of_point("full1"), PointState.missing, now=NOW)
    assert next_good(database, "inc2") is None


@pytest.mark.parametrize(
    ("vss", "expected"),
    [
        (None, None),
        ({"applicable": False}, False),
        ({"applicable": True, "writers": [{"class_id": NTDS.upper()}], "writers_source": "vssadmin"}, True),
        ({"applicable": True, "writers": [], "writers_source": "vssadmin"}, False),
        ({"applicable": True, "writers": [], "writers_source": None}, None),
    ],
)
def test_a_domain_controller_is_known_by_its_writer(
    database: Database, nas: str, vss: dict[str, Any] | None, expected: bool | None
) -> None:
    with database.write() as session:
        add_sealed(session, "dc", nas, vss=vss)
    assert point(database, "dc").is_domain_controller is expected


def test_a_domain_is_a_domain_controller_by_any_of_its_points_and_jobs(database: Database, nas: str) -> None:
    """On both databases, as the writers of a job are found in its text."""

    def said() -> bool | None:
        with database.read() as session:
            return is_controller(session, DB1)

    assert said() is None
    with database.write() as session:
        add_sealed(session, "member", nas, vss={"applicable": True, "writers": [], "writers_source": "vssadmin"})
    assert said() is False
    with database.write() as session:
        add_job(session, kind="preflight", vss={"applicable": True, "writers": [{"class_id": NTDS.upper()}]})
    assert said() is True
