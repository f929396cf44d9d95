"""Which points leave a copy: only what the repository removed, no rule there keeps, no lock holds and nothing that stays needs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from service.db.engine import Database, database_now
from service.db.tables import CopiedPoint, Copy, RecoveryPoint
from service.errors import CopyIncomplete, CopyLocked, CopyPointNeeded
from service.model.copied import CopiedState
from service.model.copy_target import FolderTarget
from service.model.lifecycle import JobState, PointState
from service.records import copied_points, copies, copy_removal, copy_sending, points, queue, removal
from service.records.copied_points import Arrived
from service.records.copies import CopyRegistration
from service.scheduler.sending import REMOVALS_S, SendingLooks
from tests.api.world import add_host
from tests.scenes.queue import claimed, finish
from tests.scenes.repositories import add_repository, add_sealed, id_of_point

LATER, SOONER = datetime(2100, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
ONE = {"keep_last": 1}


class Box:
    """A copy that has four nights: `full`, two increments on it, and `new`, which is full. Its rules keep one."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write() as session:
            nas = add_repository(session).id
            copy = copies.add(session, nas, CopyRegistration("box", FolderTarget("/mnt/box"), retention=ONE), datetime.now(UTC))
            self.copy_id, self.nas = copy.id, nas
            for n, (name, parent) in enumerate((("full", None), ("low", "full"), ("high", "low"), ("new", None))):
                add_sealed(session, name, nas, parent=parent, nights=n)
                copied_points.begin(session, copy, id_of_point(name), "job")
                copied_points.note_sent(session, copy, Arrived(id_of_point(name), 10, "content", None), datetime.now(UTC))

    def removed(self, *names: str) -> None:
        """By the repository, those that stand on others first."""
        with self.database.write() as session:
            now = database_now(session)
            for name in names:
                removal.give_up(session, id_of_point(name), now=now, facts={})
                removal.take_off_the_list(session, id_of_point(name), now=now, facts={})

    def note(self, name: str, **values: Any) -> None:
        with self.database.write() as session:
            session.execute(update(CopiedPoint).where(CopiedPoint.point_id == id_of_point(name)).values(values))

    def going(self) -> list[str]:
        names = {id_of_point(name): name for name in ("full", "low", "high", "new")}
        with self.database.read() as session:
            copy = copies.get(session, self.nas, self.copy_id)
            return [names[each] for each in copy_removal.going(session, copy, datetime.now(UTC))]

    def ask(self, *names: str) -> None:
        with self.database.read() as session:
            copy = copies.get(session, self.nas, self.copy_id)
            copy_removal.asked_for(session, copy, [id_of_point(name) for name in names], datetime.now(UTC))


@pytest.fixture
def box(database: Database) -> Box:
    return Box(database)


def test_what_the_repository_has_stays(box: Box) -> None:
    assert box.going() == []


def test_what_the_repository_removed_goes_by_the_rules_and_tops_first(box: Box) -> None:
    box.removed("high", "low", "full")
    assert box.going() == ["high", "low", "full"]


def test_the_newest_stays_although_the_repository_removed_everything(box: Box) -> None:
    box.removed("new", "high", "low", "full")
    assert box.going() == ["high", "low", "full"]


def test_without_rules_everything_stays(box: Box) -> None:
    box.removed("high", "low", "full")
    with box.database.write() as session:
        session.execute(update(Copy).values(retention=None))
    assert box.going() == []


def test_what_the_repository_lost_or_forgot_stays(box: Box) -> None:
    """That is when the copy is needed."""
    with box.database.write() as session:
        points.set_state(session, id_of_point("high"), PointState.missing, now=database_now(session))
        points.forget_of(session, box.nas)
    assert box.going() == []


def test_what_came_back_into_the_repository_stays(box: Box) -> None:
    box.removed("high", "low", "full")
    with box.database.write() as session:
        add_sealed(session, "full", box.nas)
    assert box.going() == ["high", "low"]


def test_a_base_stays_as_long_as_an_increment_stays_there(box: Box) -> None:
    box.removed("high", "low", "full")
    box.note("low", locked_until=LATER)
    assert box.going() == ["high"]


def test_what_is_locked_stays_until_its_lock_is_over(box: Box) -> None:
    box.removed("high", "low", "full")
    box.note("high", locked_until=LATER)
    assert box.going() == []
    box.note("high", locked_until=SOONER)
    assert box.going() == ["high", "low", "full"]


def test_what_is_being_sent_keeps_what_it_stands_on(box: Box) -> None:
    box.removed("low", "full")
    box.note("high", state=CopiedState.sending.value)
    assert box.going() == []


@pytest.mark.parametrize("rules", [ONE, None])
def test_what_was_sent_in_part_goes_once_the_repository_has_removed_it(box: Box, rules: dict[str, int] | None) -> None:
    """The rest of it can never come."""
    with box.database.write() as session:
        session.execute(update(Copy).values(retention=rules))
    box.removed("high")
    box.note("high", state=CopiedState.sending.value, locked_until=LATER)
    assert box.going() == []
    box.note("high", locked_until=None)
    assert box.going() == ["high"]


def test_what_was_sent_in_part_stays_while_another_point_there_stands_on_it(box: Box) -> None:
    box.removed("low", "full")
    box.note("low", state=CopiedState.sending.value)
    assert box.going() == []


def test_what_was_begun_is_finished_whatever_the_rules_say_now(box: Box) -> None:
    box.removed("high")
    box.note("high", state=CopiedState.removing.value)
    with box.database.write() as session:
        session.execute(update(Copy).values(retention=None))
    assert box.going() == ["high"]


def test_a_point_that_goes_is_not_retained_and_not_whole_from_the_first_moment(box: Box) -> None:
    with box.database.write() as session:
        copy = copies.get(session, box.nas, box.copy_id)
        session.execute(update(Copy).values(immutability="immutable"))
        session.execute(update(CopiedPoint).values(locked_until=SOONER))
        copied_points.tell_retained(session, [id_of_point("high")])
        assert points.get(session, id_of_point("high")).retained_until == SOONER
        copy_removal.begin(session, copy, id_of_point("high"), "job", by_rule=False)
    with box.database.read() as session:
        assert session.get_one(RecoveryPoint, id_of_point("high")).retained_until is None
        _, missing = copied_points.whole_with_all_below(session, box.copy_id, [id_of_point("high")])
    assert missing == [id_of_point("high")]


# --- what a person asks -----------------------------------------------------------------------------


def test_a_locked_point_is_refused_with_the_end_of_its_lock(box: Box) -> None:
    box.note("new", locked_until=LATER)
    with pytest.raises(CopyLocked) as refused:
        box.ask("new")
    assert datetime.fromisoformat(refused.value.facts["until"]) == LATER


def test_a_base_is_refused_and_goes_with_all_that_stands_on_it(box: Box) -> None:
    with pytest.raises(CopyPointNeeded) as refused:
        box.ask("full", "low")
    assert refused.value.facts["needed_by"] == [id_of_point("high")]
    box.ask("full", "low", "high")


def test_a_point_that_is_not_there_is_refused(box: Box) -> None:
    with pytest.raises(CopyIncomplete):
        box.ask("another")


def test_the_rules_are_asked_again_before_a_point_goes(box: Box) -> None:
    box.removed("high", "low", "full")
    assert box.going() == ["high", "low", "full"]
    with box.database.write() as session:
        session.execute(update(Copy).values(retention={"keep_last": 4}))
        copy = copies.get(session, box.nas, box.copy_id)
        assert copy_removal.begin(session, copy, id_of_point("high"), "job", by_rule=True) is None


def test_a_job_of_the_rules_is_asked_for_once_and_again_after_a_failure_only_later(box: Box) -> None:
    with box.database.write() as session:
        add_host(session)
        queue.ensure_slots(session, "host:hv1:sending", 1)
    clock = [0.0]
    looks = SendingLooks(box.database, lambda: None, lambda: clock[0])

    def look() -> int:
        """After the time for which a process looks no more."""
        clock[0] += REMOVALS_S
        return looks.look()

    assert look() == 0
    box.removed("high", "low", "full")
    assert (looks.look(), look(), look()) == (0, 1, 0)
    finish(box.database, claimed(box.database), JobState.failed)
    assert look() == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_sending, "PAUSE", timedelta(0))
        assert look() == 1
