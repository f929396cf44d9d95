"""Policies that name copies: their new points are sent without anybody asking, each once however many processes look."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database, database_now
from service.db.tables import CopiedPoint, Job, RecoveryPoint
from service.model.copied import CopiedState
from service.model.copy_target import FolderTarget
from service.model.lifecycle import JobState, PointState
from service.model.origin import POLICY_LABEL
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.records import copies, copy_sending, points, policies, queue
from service.records.copies import CopyRegistration
from service.records.copy_sending import PAUSE
from service.scheduler.loop import Loop
from service.scheduler.sending import SendingLooks
from tests.api.world import add_host
from tests.scenes.queue import claimed, finish
from tests.scenes.repositories import add_sealed, id_of_point
from tests.scenes.retained import NIGHTLY, a_policy, add_nights, add_policy, add_ready_repository


class Offsite:
    """A repository with two nights of a track, and a copy that the track names."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.woken = 0
        with database.write() as session:
            add_host(session)
            queue.ensure_slots(session, "host:hv1:sending", 2)
            self.repository_id = add_ready_repository(session)
            add_policy(session, copies=["offsite"])
            add_nights(session, self.repository_id, "a", "b")
        self.copy_id = self.add_copy("offsite")

    def add_copy(self, name: str) -> str:
        with self.database.write() as session:
            registration = CopyRegistration(name, FolderTarget(f"/mnt/{name}"))
            return copies.add(session, self.repository_id, registration, datetime.now(UTC)).id

    def look(self) -> int:
        return SendingLooks(self.database, self._wake).look()

    def _wake(self) -> None:
        self.woken += 1

    def jobs(self) -> list[Job]:
        with self.database.read() as session:
            return list(session.scalars(select(Job).where(Job.kind == "copy").order_by(Job.created_at, Job.id)))

    def asked(self) -> list[list[str]]:
        names = {id_of_point(name): name for name in "abcdefgh"}
        return [[names[point] for point in job.request["recovery_points"]] for job in self.jobs()]

    def policy(self, **more: Any) -> None:
        with self.database.write() as session:
            row = policies.get(session, "production")
            policies.change(session, row, a_policy(**({"copies": ["offsite"]} | more)), database_now(session))

    def ends(self, state: JobState = JobState.succeeded, *sent: str) -> None:
        finish(self.database, claimed(self.database), state)
        for name in sent:
            self.has(name)

    def has(self, name: str, state: CopiedState = CopiedState.whole) -> None:
        with self.database.write() as session:
            point = points.get(session, id_of_point(name))
            session.merge(a_copied_point(self.copy_id, point, state))


def a_copied_point(copy_id: str, point: RecoveryPoint, state: CopiedState) -> CopiedPoint:
    now = datetime.now(UTC)
    return CopiedPoint(
        copy_id=copy_id,
        point_id=point.id,
        state=state.value,
        folder=point.folder,
        domain_id=point.domain_id,
        domain_name=point.domain_name,
        point_in_time_at=point.point_in_time_at,
        verdict=point.verdict,
        parents=list(point.parents or ()),
        manifest_digest=point.manifest_digest,
        size_bytes=point.size_bytes,
        job_id="",
        begun_at=now,
        sent_at=now,
    )


@pytest.fixture
def offsite(database: Database) -> Offsite:
    return Offsite(database)


# --- what is asked for ------------------------------------------------------------------------------


def test_the_points_of_the_track_that_the_copy_has_not_are_sent_newest_first(offsite: Offsite) -> None:
    assert (offsite.look(), offsite.woken, offsite.asked()) == (1, 1, [["b", "a"]])
    (job,) = offsite.jobs()
    assert (job.request["action"], job.request["copy"], job.host_id, job.token_id) == ("send", offsite.copy_id, "hv1", None)
    assert (job.labels[POLICY_LABEL], job.labels["asked_by"]) == ("production", "stillpoint")


def test_a_new_point_is_sent_when_the_job_before_has_ended(offsite: Offsite) -> None:
    offsite.look()
    with offsite.database.write() as session:
        add_nights(session, offsite.repository_id, "c", first=2)
    assert offsite.look() == 0
    offsite.ends(JobState.succeeded, "a", "b")
    assert (offsite.look(), offsite.asked()[1:]) == (1, [["c"]])


def test_where_nothing_is_missing_nothing_is_asked_for(offsite: Offsite) -> None:
    offsite.has("a")
    offsite.has("b")
    assert (offsite.look(), offsite.woken) == (0, 0)


def test_what_is_there_in_part_or_damaged_is_sent_again(offsite: Offsite) -> None:
    offsite.has("a", CopiedState.sending)
    offsite.has("b", CopiedState.damaged)
    assert (offsite.look(), offsite.asked()) == (1, [["b", "a"]])


def test_points_of_other_tracks_and_of_persons_are_left_alone(offsite: Offsite) -> None:
    with offsite.database.write() as session:
        add_sealed(session, "c", offsite.repository_id, nights=2, labels={**NIGHTLY.as_labels(), "stillpoint.track": "other"})
        add_sealed(session, "d", offsite.repository_id, nights=3)
    offsite.look()
    assert offsite.asked() == [["b", "a"]]


def test_what_is_known_to_be_bad_is_not_asked_for_again_and_again(offsite: Offsite) -> None:
    with offsite.database.write() as session:
        points.add_proofs(session, id_of_point("b"), [Proof(ProofKind.bytes, ok=False, facts={})], datetime.now(UTC))
        points.set_state(session, id_of_point("a"), PointState.damaged, now=database_now(session))
    assert offsite.look() == 0


def test_one_job_has_a_bounded_number_of_points(offsite: Offsite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_sending, "MAX_SENT", 1)
    offsite.look()
    offsite.ends(JobState.succeeded, "b")
    offsite.look()
    assert offsite.asked() == [["b"], ["a"]]


def test_a_track_may_name_several_copies_and_each_has_a_job(offsite: Offsite) -> None:
    second = offsite.add_copy("second")
    offsite.policy(copies=["offsite", second])
    assert (offsite.look(), {job.request["copy"] for job in offsite.jobs()}) == (2, {offsite.copy_id, second})


# --- when not ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.failed, JobState.cancelled])
def test_after_a_job_that_did_not_send_everything_there_is_a_pause(offsite: Offsite, state: JobState) -> None:
    offsite.look()
    offsite.ends(state)
    assert offsite.look() == 0
    with offsite.database.write() as session:
        session.execute(update(Job).values(finished_at=database_now(session) - PAUSE - timedelta(seconds=1)))
    assert offsite.look() == 1


def test_a_policy_that_is_paused_sends_nothing(offsite: Offsite) -> None:
    offsite.policy(paused=True)
    assert offsite.look() == 0


def test_a_copy_that_is_not_there_any_more_stops_nothing_else(offsite: Offsite) -> None:
    offsite.policy(copies=["gone", "offsite"])
    assert offsite.look() == 1


def test_a_job_that_a_person_asked_for_is_not_in_the_way(offsite: Offsite) -> None:
    """It may be about other points, and it locks the copy for as long as it works."""
    new = queue.NewJob("copy", None, None, "hv1", {"kind": "copy", "action": "check"}, {}, copy_id=offsite.copy_id)
    with offsite.database.write() as session:
        queue.enqueue(session, new)
    assert offsite.look() == 1


def test_the_job_waits_in_a_blackout_of_its_policy(offsite: Offsite) -> None:
    offsite.look()
    with offsite.database.write() as session:
        now = database_now(session)
        row = policies.get(session, "production")
        row.blocked_from, row.blocked_until = now - timedelta(hours=1), now + timedelta(hours=1)
    with offsite.database.write() as session:
        assert queue.claim(session, "hv1", "me", 60) is None


# --- many processes ---------------------------------------------------------------------------------


def test_of_many_processes_that_look_at_once_one_makes_the_job(offsite: Offsite) -> None:
    together, made = threading.Barrier(6), []

    def look() -> None:
        loop = SendingLooks(offsite.database, lambda: None)
        together.wait()
        made.append(loop.look())

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(made), offsite.asked()) == ([0] * 5 + [1], [["b", "a"]])


def test_a_service_that_starts_looks_by_itself(offsite: Offsite) -> None:
    looked = threading.Event()
    loop = Loop.every(60.0, "sending", SendingLooks(offsite.database, looked.set).look, threading.Event())
    loop.start()
    assert looked.wait(60)
    loop.stop()
    assert offsite.asked() == [["b", "a"]]
