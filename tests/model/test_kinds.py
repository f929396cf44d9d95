"""The table of kinds: whole, frozen, and free of contradictions."""

import dataclasses

import pytest

from service.model.kinds import KINDS, JobKind, Kind, Lane, Locks, kind_of


def test_every_kind_has_its_row() -> None:
    assert set(KINDS) == set(JobKind)
    assert all(row.name is name for name, row in KINDS.items())


def test_nobody_changes_the_table() -> None:
    with pytest.raises(TypeError):
        KINDS[JobKind.thaw] = KINDS[JobKind.snapshot]  # type: ignore[index]  # what the type forbids is tried
    with pytest.raises(dataclasses.FrozenInstanceError):
        KINDS[JobKind.thaw].freezes = True  # type: ignore[misc]  # what the type forbids is tried


@pytest.mark.parametrize("row", KINDS.values(), ids=lambda row: row.name)
def test_no_row_contradicts_itself(row: Kind) -> None:
    if row.freezes:
        # Two freezes of one guest would end each other.
        assert row.locks is Locks.domain
        # A guest that stands still waits for nobody's copy.
        assert row.lane is Lane.quick
    if row.is_urgent:
        assert row.locks is Locks.nothing
    assert not (row.makes_point and row.has_gate)
    assert row.attempts >= 1


def test_a_kind_of_a_newer_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="defrost"):
        kind_of("defrost")
