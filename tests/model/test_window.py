"""What the agent's answers to freeze and thaw mean."""

import pytest

from service.model.window import (
    FreezeOutcome,
    ThawOutcome,
    WindowRecord,
    classify_freeze_error,
    classify_thaw_count,
    classify_thaw_error,
)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("fsfreeze hook has failed with status 3", FreezeOutcome.hook_failed),
        ("child process has failed to execute fsfreeze hook: exit status 3", FreezeOutcome.hook_failed),
        ("child process has failed to execute fsfreeze hook: the database is busy", FreezeOutcome.hook_failed),
        ("child process has terminated abnormally", FreezeOutcome.hook_failed),
        ("child process has terminated abnormally: the database is busy", FreezeOutcome.hook_failed),
        ("fsfreeze hook has terminated abnormally", FreezeOutcome.hook_failed),
        ("can't access fsfreeze hook '/etc/qemu/fsfreeze-hook': No such file or directory", FreezeOutcome.hook_failed),
        ("failed to freeze /data: Input/output error", FreezeOutcome.refused),
        ("failed to open /data: Permission denied", FreezeOutcome.refused),
        ("", FreezeOutcome.refused),
    ],
)
def test_an_error_of_a_freeze(text: str, outcome: FreezeOutcome) -> None:
    assert classify_freeze_error(text) is outcome


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("fsfreeze hook has failed with status 1", ThawOutcome.hook_failed),
        ("child process has failed to execute fsfreeze hook: exit status 1", ThawOutcome.hook_failed),
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds: ", ThawOutcome.refused),
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds: Windows error 0x80042314: ", ThawOutcome.refused),
        ("failed to complete backup", ThawOutcome.refused),
    ],
)
def test_an_error_of_a_thaw(text: str, outcome: ThawOutcome) -> None:
    assert classify_thaw_error(text) is outcome


@pytest.mark.parametrize(
    ("frozen", "thawed", "outcome"),
    [
        (3, 3, ThawOutcome.completed),
        (3, 0, ThawOutcome.lost),
        (3, 2, ThawOutcome.count_differs),
        (3, 4, ThawOutcome.count_differs),
        (None, 2, ThawOutcome.count_differs),
        (None, 0, ThawOutcome.lost),
        (0, 0, ThawOutcome.lost),
    ],
)
def test_a_count_of_a_thaw(frozen: int | None, thawed: int, outcome: ThawOutcome) -> None:
    assert classify_thaw_count(frozen, thawed) is outcome


def test_a_record_of_nothing_says_that_nothing_was_asked_for() -> None:
    document = WindowRecord().as_document()
    assert (document["freeze"]["outcome"], document["thaw"]["outcome"], document["watchdog_fired"]) == (
        "not_requested",
        "not_needed",
        False,
    )
