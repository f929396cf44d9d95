"""The writers before the freeze and after the thaw, compared instance by instance."""

import pytest

from service.model.windows.vss_writers import WriterReport, parse
from service.model.windows.writer_changes import ChangeKind, compare
from tests.model.windows.vssadmin_samples import BITS, ESPERANTO, REGISTRY, SQL, SYSTEM, TASKS, WMI, Identity, english, output_of, well

pytestmark = pytest.mark.windows

Listed = tuple[Identity, int, str]


def report(*listed: Listed) -> WriterReport:
    return parse(english(*listed))


def kinds(before: WriterReport | None, after: WriterReport | None) -> dict[str, ChangeKind]:
    return {change.name: change.kind for change in compare(before, after).changes}


def reborn(who: Identity) -> Identity:
    return who[0], who[1], "fedcba98-7654-4321-8fed-cba987654321"


def test_writers_that_stay_well_are_unchanged() -> None:
    assert kinds(report(*well(TASKS, SQL)), report(*well(SQL, TASKS))) == {
        "SqlServerWriter": ChangeKind.unchanged,
        "Task Scheduler Writer": ChangeKind.unchanged,
    }


def test_a_writer_that_was_well_and_failed_is_newly_failed() -> None:
    assert kinds(report(*well(SQL)), report((SQL, 9, "Timed out"))) == {"SqlServerWriter": ChangeKind.newly_failed}


def test_a_stable_writer_with_a_new_error_is_newly_failed() -> None:
    after = report(*well(TASKS), (SQL, 1, "Retryable error"))
    assert kinds(report(*well(TASKS, SQL)), after)["SqlServerWriter"] is ChangeKind.newly_failed


def test_trap_16_the_same_failure_as_before_is_an_old_one() -> None:
    old = report((SQL, 8, "Retryable error"))
    assert kinds(old, old) == {"SqlServerWriter": ChangeKind.pre_existing}


def test_a_failure_of_another_kind_than_before_is_a_new_one() -> None:
    before = report((SQL, 8, "Retryable error"))
    assert kinds(before, report((SQL, 9, "Retryable error"))) == {"SqlServerWriter": ChangeKind.newly_failed}
    assert kinds(before, report((SQL, 8, "Timed out"))) == {"SqlServerWriter": ChangeKind.newly_failed}


def test_the_same_failure_in_a_new_instance_is_a_new_one() -> None:
    assert kinds(report((SQL, 8, "Timed out")), report((reborn(SQL), 8, "Timed out"))) == {"SqlServerWriter": ChangeKind.newly_failed}


def test_a_writer_that_had_failed_and_is_well_has_recovered() -> None:
    assert kinds(report((SQL, 8, "Timed out")), report(*well(SQL))) == {"SqlServerWriter": ChangeKind.recovered}


def test_a_writer_on_one_list_only_appeared_or_vanished() -> None:
    assert kinds(report(*well(TASKS, SQL)), report(*well(TASKS, WMI))) == {
        "Task Scheduler Writer": ChangeKind.unchanged,
        "WMI Writer": ChangeKind.appeared,
        "SqlServerWriter": ChangeKind.vanished,
    }


def test_a_writer_that_appears_failed_is_newly_failed() -> None:
    assert kinds(report(*well(TASKS)), report(*well(TASKS), (SQL, 10, "Timed out")))["SqlServerWriter"] is ChangeKind.newly_failed


def test_a_service_that_was_restarted_is_found_again_by_class_and_name() -> None:
    (change,) = compare(report(*well(SQL)), report(*well(reborn(SQL)))).changes
    assert change.kind is ChangeKind.restarted
    assert change.note is not None


def test_a_new_instance_of_a_writer_that_lives_in_the_vss_service_is_a_note() -> None:
    (change,) = compare(report(*well(REGISTRY)), report(*well(reborn(REGISTRY)))).changes
    assert change.kind is ChangeKind.unchanged
    assert change.note is not None


def test_namesakes_that_cannot_be_told_apart_are_not_paired() -> None:
    def instance(number: int) -> Identity:
        return SQL[0], SQL[1], f"0000000{number}-0000-4000-8000-000000000000"

    changes = compare(report(*well(instance(1), instance(2))), report(*well(instance(3), instance(4)))).changes
    assert [change.kind for change in changes] == [ChangeKind.appeared] * 2 + [ChangeKind.vanished] * 2
    changes = compare(report(*well(instance(1))), report(*well(instance(3), instance(4)))).changes
    assert [change.kind for change in changes] == [ChangeKind.appeared] * 2 + [ChangeKind.vanished]


def test_two_instances_of_one_class_are_two_writers() -> None:
    other = ("SqlServerWriter", SQL[1], "0000000a-0000-4000-8000-000000000000")
    changes = compare(report(*well(SQL, other)), report((other, 9, "Timed out"), *well(SQL))).changes
    assert [(change.instance_id, change.kind) for change in changes] == [
        (other[2], ChangeKind.newly_failed),
        (SQL[2], ChangeKind.unchanged),
    ]


def test_a_writer_between_two_states_is_not_settled() -> None:
    assert kinds(report(*well(SQL)), report((SQL, 5, "No error"))) == {"SqlServerWriter": ChangeKind.not_settled}


def test_a_writer_that_cannot_be_judged_is_not_understood() -> None:
    assert kinds(report(*well(SQL)), report((SQL, 0, "No error"))) == {"SqlServerWriter": ChangeKind.not_understood}


def test_without_a_list_from_before_every_failure_is_new() -> None:
    assert kinds(None, report(*well(TASKS), (SQL, 9, "Timed out"))) == {
        "Task Scheduler Writer": ChangeKind.unchanged,
        "SqlServerWriter": ChangeKind.newly_failed,
    }


def test_without_a_list_from_after_nothing_is_said() -> None:
    assert compare(report(*well(SQL)), None).changes == ()


def test_a_list_that_is_cut_off_says_nothing_about_who_is_missing() -> None:
    cut = parse(english(*well(TASKS)), truncated=True)
    assert kinds(report(*well(TASKS, SQL)), cut) == {"Task Scheduler Writer": ChangeKind.unchanged}


def test_an_error_that_befell_every_writer_of_an_unknown_language_is_doubted() -> None:
    four = (TASKS, SYSTEM, SQL, BITS)
    before = parse(output_of(ESPERANTO, [(who, 1, "Neniu eraro") for who in four]))
    after = parse(output_of(ESPERANTO, [(who, 1, "Reprovebla eraro") for who in four]))
    assert compare(before, after).language_doubt
    assert not compare(before, before).language_doubt
