"""The auto-recovery mode and the backup type: derived, and unknown where a fact is missing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows.agent_generation import generation_of
from service.model.windows.auto_recovery import (
    BackupType,
    OnRestore,
    RecoveryMode,
    VssOption,
    VssOptionState,
    backup_type,
    derive,
    kernel_version,
    read_vss_option,
)
from service.model.windows.vss_writers import parse
from service.model.windows.well_known_writers import writer_class
from tests.model.windows.vssadmin_samples import SQL, TASKS, THIRD_PARTY, english, well

pytestmark = pytest.mark.windows


def windows(kernel: str | None, variant: str | None = "server", **more: Any) -> dict[str, Any]:
    answered = {"id": "mswindows", "kernel-version": kernel, "variant-id": variant, **more}
    return {name: value for name, value in answered.items() if value is not None}


# --- F§6.6 ----------------------------------------------------------------------------------------

MODES = [
    ("10.0", "server", RecoveryMode.disabled_by_requester, "0x0200002B"),
    ("10.0", "client", RecoveryMode.disabled_by_requester, "0x0200000B"),
    ("6.3", "server", RecoveryMode.disabled_by_requester, "0x0200002B"),
    ("6.2", "client", RecoveryMode.disabled_by_requester, "0x0200000B"),
    ("6.1", "server", RecoveryMode.disabled_by_requester, "0x0200002B"),
    ("6.1", "client", RecoveryMode.disabled_requested_support_uncertain, "0x0200000B"),
    ("6.1", None, RecoveryMode.disabled_requested_support_uncertain, None),
    ("6.0", "server", RecoveryMode.disabled_requested_support_uncertain, "0x0200002B"),
    ("5.2", "server", RecoveryMode.unsupported_flag_final_commit_aborted, "0x0200002B"),
    ("5.1", "client", RecoveryMode.unsupported_flag_final_commit_aborted, "0x0200000B"),
]


@pytest.mark.parametrize(("kernel", "variant", "mode", "context"), MODES)
def test_rule_the_mode_follows_from_the_kernel_version_and_the_variant(
    kernel: str, variant: str | None, mode: RecoveryMode, context: str | None
) -> None:
    found = derive(windows(kernel, variant), frozen_by_vss=True)
    assert (found.mode, found.context, found.on_restore) == (mode, context, OnRestore.recovery_required_at_first_start)
    assert found.as_document()["source"] == "derived"


def test_rule_a_guest_that_is_not_windows_has_none() -> None:
    found = derive({"id": "debian", "kernel-version": "6.1"}, frozen_by_vss=True)
    assert (found.mode, found.context, found.on_restore) == (RecoveryMode.not_applicable, None, OnRestore.not_applicable)


def test_rule_a_freeze_that_vss_did_not_do_is_unknown() -> None:
    found = derive(windows("10.0"), frozen_by_vss=False)
    assert (found.mode, found.context, found.on_restore) == (RecoveryMode.unknown, None, OnRestore.recovery_required_at_first_start)


@pytest.mark.parametrize("os", [None, {}, {"kernel-version": "10.0"}, windows(None), windows(""), windows("ten"), windows("10")])
def test_rule_missing_osinfo_is_unknown_and_never_a_default(os: dict[str, Any] | None) -> None:
    found = derive(os, frozen_by_vss=True)
    assert (found.mode, found.context) == (RecoveryMode.unknown, None)
    assert found.detail


@pytest.mark.parametrize("os", [None, {}, {"kernel-version": "10.0"}])
@pytest.mark.parametrize("frozen_by_vss", [True, False])
def test_nothing_is_claimed_for_the_restore_of_a_system_that_is_not_known(os: dict[str, Any] | None, frozen_by_vss: bool) -> None:
    assert derive(os, frozen_by_vss=frozen_by_vss).on_restore is OnRestore.unknown
    assert derive(os, frozen_by_vss=frozen_by_vss, is_windows=True).on_restore is OnRestore.recovery_required_at_first_start


def test_rule_kernel_versions_compare_as_numbers() -> None:
    assert [kernel_version(windows(text)) for text in ("10.0", "6.2", "6.10")] == [(10, 0), (6, 2), (6, 10)]
    assert derive(windows("10.0"), frozen_by_vss=True).mode is RecoveryMode.disabled_by_requester


def test_trap_19_windows_7_is_known_by_its_kernel_not_by_its_broken_name() -> None:
    seven = windows("6.1", "client", version="Microsoft Windows 77", **{"kernel-release": "7601"})
    assert derive(seven, frozen_by_vss=True).mode is RecoveryMode.disabled_requested_support_uncertain


def test_trap_19_server_2025_that_calls_itself_2022_is_the_same_mode() -> None:
    server = windows("10.0", "server", **{"kernel-release": "26100", "version-id": "2022"})
    assert derive(server, frozen_by_vss=True).mode is RecoveryMode.disabled_by_requester


def test_what_the_person_who_restores_must_expect_per_writer() -> None:
    writers = parse(english(*well(SQL, TASKS, THIRD_PARTY))).writers
    notes = derive(windows("10.0"), frozen_by_vss=True, writers=writers).as_document()["writers"]
    assert [note["name"] for note in notes] == ["SqlServerWriter"]
    assert notes[0]["on_restore"] == writer_class(SQL[1]).restore_note


@given(
    st.none() | st.dictionaries(st.sampled_from(["id", "kernel-version", "variant-id"]), st.none() | st.text(max_size=8) | st.integers())
)
def test_whatever_an_agent_says_of_its_system_is_read(os: dict[str, Any] | None) -> None:
    derive(os, frozen_by_vss=True).as_document()


# --- backup type ----------------------------------------------------------------------------------

ABSENT, INVALID, UNREADABLE = (VssOption(state) for state in (VssOptionState.absent, VssOptionState.invalid, VssOptionState.unreadable))


def present(value: int) -> VssOption:
    return VssOption(VssOptionState.present, value)


@pytest.mark.parametrize(
    ("version", "option", "expected"),
    [
        ("7.2.22", present(5), BackupType.full),
        ("105.0.2", present(5), BackupType.full),
        ("105.0.2", UNREADABLE, BackupType.full),
        ("8.0.0", present(5), BackupType.copy),
        ("106.0.1", present(1), BackupType.full),
        ("107.0.1", present(2), BackupType.incremental),
        ("107.0.1", present(3), BackupType.differential),
        ("107.0.1", present(4), BackupType.log),
        ("107.0.1", ABSENT, BackupType.full),
        ("107.0.1", INVALID, BackupType.full),
        ("107.0.1", UNREADABLE, BackupType.unknown),
        (None, present(5), BackupType.unknown),
        (None, present(1), BackupType.full),
        (None, ABSENT, BackupType.full),
    ],
)
def test_rule_the_backup_type(version: str | None, option: VssOption, expected: BackupType) -> None:
    assert backup_type(generation_of(version), option) is expected


def reg(line: str) -> bytes:
    key = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\QEMU Guest Agent VSS Provider"
    return f"\r\n{key}\r\n    {line}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("output", "exit_code", "expected"),
    [
        (reg("VssOption    REG_DWORD    0x1"), 0, present(1)),
        (reg("VssOption    REG_DWORD    0x5"), 0, present(5)),
        (reg("VssOption    REG_DWORD    0x7"), 0, VssOption(VssOptionState.invalid, 7)),
        (reg("VssOption    REG_SZ    5"), 0, INVALID),
        (b"", 1, ABSENT),
        (b"", 0, UNREADABLE),
        (b"", None, UNREADABLE),
        (b"", 5, UNREADABLE),
        (b"    VssOption    REG_DWORD    0x1", 0, UNREADABLE),
        (b"\xff\x00garbage", 0, UNREADABLE),
    ],
)
def test_the_registry_value(output: bytes, exit_code: int | None, expected: VssOption) -> None:
    assert read_vss_option(output, exit_code=exit_code) == expected


def test_a_registry_value_that_is_cut_off_is_unreadable() -> None:
    assert read_vss_option(reg("VssOption    REG_DWORD    0x1"), exit_code=0, truncated=True) == UNREADABLE


@given(st.binary(max_size=80), st.none() | st.integers(0, 3))
def test_whatever_reg_prints_is_read(output: bytes, exit_code: int | None) -> None:
    read_vss_option(b"VssOption " + output, exit_code=exit_code)
