"""What retention says of the points on record, by the policies on record. On both databases."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import true, update

from service.db.engine import Database
from service.db.tables import Policy, RecoveryPoint, Repository
from service.model.lifecycle import PointState
from service.model.origin import Origin
from service.model.proofs import Proof
from service.model.repository import ProofKind, RepositoryState
from service.model.retention import Goes, Stays
from service.model.retention_rules import Rules
from service.model.retention_terms import Trial
from service.records import points, policies, queue, retention
from service.records.queue import NewJob
from tests.scenes.repositories import DB1, add_sealed, id_of_point
from tests.scenes.retained import LATER, NIGHTLY, a_policy, add_nights, add_policy, add_ready_repository

KEEP_2 = {"keep_last": 2}


class Records:
    """A repository `nas`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write() as session:
            self.nas = add_ready_repository(session)

    def policy(self, name: str = "production", **more: Any) -> None:
        with self.database.write() as session:
            add_policy(session, name, **more)

    def nights(self, *names: str, repository: str | None = None, **fields: Any) -> None:
        with self.database.write() as session:
            add_nights(session, repository or self.nas, *names, **fields)

    def another_repository(self, name: str) -> str:
        with self.database.write() as session:
            return add_ready_repository(session, name)

    def set_state(self, name: str, state: PointState) -> None:
        with self.database.write() as session:
            points.set_state(session, id_of_point(name), state, now=LATER)

    def repository_is(self, repository_id: str, state: RepositoryState) -> None:
        with self.database.write() as session:
            session.execute(update(Repository).where(Repository.id == repository_id).values(state=state.value))

    def judge(self, trial: Trial | None = None, now: datetime = LATER) -> dict[str, set[str]]:
        """The codes for each id of a point."""
        with self.database.read() as session:
            return {each.point.id: set(each.decision.codes) for each in retention.judge(session, true(), now, trial)}

    def going(self, *names: str, trial: Trial | None = None) -> set[str]:
        """Those of the names whose points go."""
        with self.database.read() as session:
            goes = {each.point.id for each in retention.judge(session, true(), LATER, trial) if not each.decision.stays}
        return {name for name in names if id_of_point(name) in goes}


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


def why(records: Records, name: str, **options: Any) -> set[str]:
    return records.judge(**options)[id_of_point(name)]


# --- the rules of the track -------------------------------------------------------------------------


def test_the_rules_of_the_track_decide(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c", "d")
    assert records.going("a", "b", "c", "d") == {"a", "b"}
    assert why(records, "d") == {Stays.last, Stays.newest_good}
    assert why(records, "a") == {Goes.too_old}


def test_each_track_of_a_domain_is_kept_by_its_own_rules(records: Records) -> None:
    document = a_policy(retention=KEEP_2)
    document["tracks"].append({**document["tracks"][0], "name": "weekly", "retention": {"keep_last": 3}})
    with records.database.write() as session:
        policies.add(session, document, LATER)
    records.nights("a", "b", "c", "d")
    records.nights("e", "f", "g", "h", origin=Origin("production", "weekly"), first=10)
    assert records.going(*"abcdefgh") == {"a", "b", "e"}


def test_a_point_that_no_policy_asked_for_is_never_removed(records: Records) -> None:
    records.policy(retention={"keep_last": 1})
    records.nights("a", "b", origin=None)
    assert why(records, "a") == {Stays.not_of_policy}
    assert why(records, "a", trial=Trial(Rules(keep_last=1))) == {Stays.not_of_policy}


def test_points_of_a_person_do_not_count_for_the_track(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    records.nights("d", "e", origin=None, first=10)
    assert records.going(*"abcde") == {"a"}


def test_without_a_rule_everything_stays(records: Records) -> None:
    records.policy(retention=None)
    records.nights("a", "b")
    assert why(records, "a") == {Stays.no_rule}


# --- what is not clear keeps everything -------------------------------------------------------------


def test_a_policy_that_was_deleted_leaves_its_points_and_takes_them_up_when_it_comes_back(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    with records.database.write() as session:
        policies.remove(session, "production")
    assert why(records, "a") == {Stays.policy_gone}
    records.policy(retention=KEEP_2)
    assert records.going(*"abc") == {"a"}


def test_a_policy_that_was_renamed_leaves_its_points(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    with records.database.write() as session:
        policies.change(session, policies.get(session, "production"), a_policy("other", retention=KEEP_2), LATER)
    assert why(records, "a") == {Stays.policy_gone}


def test_a_track_that_was_renamed_leaves_its_points(records: Records) -> None:
    records.policy(retention=KEEP_2, track="every-night")
    records.nights("a", "b", "c")
    assert why(records, "a") == {Stays.track_gone}


def test_a_paused_policy_removes_nothing_and_can_be_tried_out(records: Records) -> None:
    records.policy(retention=KEEP_2, paused=True)
    records.nights("a", "b", "c")
    assert why(records, "a") == {Stays.policy_paused}
    assert records.going(*"abc", trial=Trial(Rules(keep_last=1))) == {"a", "b"}


def test_a_policy_that_this_version_cannot_read_removes_nothing(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    with records.database.write() as session:
        session.execute(update(Policy).values(document={**a_policy(), "of_a_newer_version": True}))
    assert why(records, "a") == {Stays.policy_unreadable}


# --- repositories -----------------------------------------------------------------------------------


def test_a_track_that_has_moved_to_another_repository_is_kept_as_one(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b")
    records.nights("c", "d", repository=records.another_repository("tape"), first=2)
    assert records.going(*"abcd") == {"a", "b"}


@pytest.mark.parametrize("state", [RepositoryState.gone, RepositoryState.not_answering, RepositoryState.bad, RepositoryState.unknown])
def test_points_in_a_repository_that_is_away_push_out_nothing_and_stay(records: Records, state: RepositoryState) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    tape = records.another_repository("tape")
    records.nights("d", "e", repository=tape, first=3)
    assert records.going(*"abcde") == {"a", "b", "c"}
    records.repository_is(tape, state)
    assert records.going(*"abcde") == {"a"}
    assert why(records, "d") == {Stays.repository_away}


@pytest.mark.parametrize("state", [RepositoryState.full, RepositoryState.read_only])
def test_a_repository_that_can_be_read_counts(records: Records, state: RepositoryState) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    records.repository_is(records.nas, state)
    assert records.going(*"abc") == {"a"}


# --- what is bad, needed, in use, or on its way -----------------------------------------------------


def test_a_damaged_point_does_not_count(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c", "d")
    records.set_state("c", PointState.damaged)
    assert records.going(*"abcd") == {"a", "c"}


def test_a_point_whose_newest_proof_is_bad_does_not_count_before_its_state_says_so(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c", "d")
    with records.database.write() as session:
        points.add_proofs(session, id_of_point("c"), [Proof(ProofKind.bytes, False)], LATER)
    assert records.going(*"abcd") == {"a", "c"}


def test_what_a_kept_point_needs_stays_and_the_reason_names_it(records: Records) -> None:
    """Also where the point that needs it is of a person."""
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    with records.database.write() as session:
        add_sealed(session, "inc", records.nas, parent="a", nights=9)
    assert why(records, "a") == {Stays.needed_by}


@pytest.mark.parametrize("kind", ["restore", "verify"])
def test_what_a_waiting_job_reads_stays(records: Records, kind: str) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    request = {"kind": kind, "recovery_point": id_of_point("a"), "mode": "files"}
    domain = DB1 if kind == "restore" else None
    new = NewJob(kind, domain, "db1", "hv1", request, {}, point_id=id_of_point("a"), repository_id=records.nas)
    with records.database.write() as session:
        job_id = queue.enqueue(session, new).job_id
    assert why(records, "a") == {Stays.in_use}
    with records.database.write() as session:
        queue.request_cancel(session, job_id)
    assert records.going(*"abc") == {"a"}


def test_a_point_that_was_given_up_goes_and_counts_for_nothing(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.nights("a", "b", "c")
    records.set_state("c", PointState.leaving)
    assert records.going(*"abc") == {"c"}
    assert why(records, "c") == {Goes.leaving}


def test_a_pinned_point_stays_whatever_the_rules_are(records: Records) -> None:
    records.policy(retention={"keep_last": 1})
    records.nights("a", "b", "c")
    with records.database.write() as session:
        points.set_pinned(session, id_of_point("a"), pinned=True)
    assert (why(records, "a"), records.going(*"abc")) == ({Stays.pinned}, {"b"})


def test_a_track_keeps_its_last_point_with_the_verdict_that_its_policy_promises(records: Records) -> None:
    """A track that does not say what it demands asks for what its freeze mode promises."""
    records.policy(retention={"keep_last": 1})
    records.nights("a")
    records.nights("b", "c", first=1, verdict="crash")
    assert records.going(*"abc") == {"b"}
    assert why(records, "a") == {Stays.newest_with_verdict}
    with records.database.write() as session:
        promised = a_policy(retention={"keep_last": 1}, promise={"verdict": "crash"})
        policies.change(session, policies.get(session, "production"), promised, LATER)
    assert records.going(*"abc") == {"a", "b"}


def test_a_point_beside_the_disks_stays(records: Records) -> None:
    records.policy(retention={"keep_last": 1})
    records.nights("a", "b")
    with records.database.write() as session:
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == id_of_point("a")).values(repository_id=None))
    assert why(records, "a") == {Stays.not_in_repository}


# --- rules that are tried out -----------------------------------------------------------------------


def test_rules_are_tried_on_the_tracks_that_the_trial_names(records: Records) -> None:
    records.policy(retention=KEEP_2)
    records.policy("other", retention=KEEP_2, track="nightly")
    records.nights("a", "b", "c", origin=NIGHTLY)
    records.nights("d", "e", "f", origin=Origin("other", "nightly"), first=10)
    one = Rules(keep_last=1)
    assert records.going(*"abcdef", trial=Trial(one)) == {"a", "b", "d", "e"}
    assert records.going(*"abcdef", trial=Trial(one, "production")) == {"a", "b", "d"}
    assert records.going(*"abcdef", trial=Trial(one, "production", "weekly")) == {"a", "d"}
