"""Each fact about a Windows guest has a check of its own, with a remedy where something is to be done."""

from dataclasses import replace
from typing import Any

import pytest

from service.model.check import CheckStatus
from service.model.inventory import Filesystem
from service.model.verdict import Verdict
from service.model.windows import auto_recovery, vss_writers
from service.model.windows import checks as checks_windows
from service.model.windows.agent_generation import generation_of
from service.model.windows.auto_recovery import BackupType
from service.model.windows.checks import WindowsCircumstances
from service.model.windows.volume_coverage import DriveType
from service.model.windows.vss_writers import Writer, WriterReport, WritersProblem
from service.model.windows.well_known_writers import EXCHANGE, SQL_SERVER

pytestmark = pytest.mark.windows

OS = {"id": "mswindows", "kernel-version": "10.0", "variant-id": "server"}


def report(*writers: Writer, problem: WritersProblem | None = None) -> WriterReport:
    return replace(vss_writers.parse(b""), writers=writers, problem=problem)


def writer(name: str, class_id: str, *, state: int = 1, failed: bool = False) -> Writer:
    return Writer(name, class_id, "00000000-0000-0000-0000-000000000001", state, "No error", failed)


SQL = writer("SqlServerWriter", SQL_SERVER)


def found(**changes: Any) -> WindowsCircumstances:
    """A new Windows and agent, COPY, one healthy writer, one volume."""
    healthy = WindowsCircumstances(
        generation=generation_of("107.0.1"),
        nt=(10, 0),
        backup_type=BackupType.copy,
        recovery=auto_recovery.derive(OS, frozen_by_vss=True),
        writers=report(SQL),
        writers_unavailable=None,
        volumes=[Filesystem("C:\\", "\\\\?\\Volume{1}\\", "NTFS", ("vda",))],
    )
    return replace(healthy, **changes)


def warned(circumstances: WindowsCircumstances) -> dict[str, str | None]:
    """Code to remedy of every check that is not passed."""
    return {check.code: check.remedy for check in checks_windows.checks(circumstances) if check.status is not CheckStatus.passed}


def test_nothing_to_warn_of_where_all_is_well() -> None:
    assert ({}, Verdict.application) == (warned(found()), checks_windows.expected_verdict(found()))


def test_full_matters_only_where_sql_server_is() -> None:
    assert warned(found(backup_type=BackupType.full)) == {"backup_type_full_with_sql_server": checks_windows.SET_COPY}
    assert warned(found(backup_type=BackupType.full, writers=report())) == {}


def test_a_backup_type_that_could_not_be_read_is_no_full() -> None:
    assert list(warned(found(backup_type=BackupType.unknown))) == ["backup_type_unknown"]


def test_exchange_is_named() -> None:
    assert list(warned(found(writers=report(writer("Microsoft Exchange Writer", EXCHANGE))))) == ["exchange_20_s"]


def test_a_writer_that_failed_already_is_named() -> None:
    assert list(warned(found(writers=report(replace(SQL, state=9, failed=True))))) == ["writer_not_healthy"]


@pytest.mark.parametrize("problem", list(WritersProblem))
def test_a_list_that_cannot_be_relied_on_leaves_the_applications_unverified(problem: WritersProblem) -> None:
    unreliable = found(writers=report(SQL, problem=problem))
    assert list(warned(unreliable)) == ["writers_unavailable"]
    assert checks_windows.expected_verdict(unreliable) is Verdict.application_unverified


@pytest.mark.parametrize(("nt", "code"), [((6, 1), "windows_is_old"), ((6, 0), "windows_is_old"), (None, "windows_version_unknown")])
def test_a_windows_that_is_old_or_unknown_leaves_the_applications_unverified(nt: tuple[int, int] | None, code: str) -> None:
    old = found(nt=nt)
    assert [code] == list(warned(old))
    assert checks_windows.expected_verdict(old) is Verdict.application_unverified


def test_volumes_that_are_not_known_or_on_no_known_disk_are_warned_of() -> None:
    unknown = found(volumes=None)
    assert list(warned(unknown)) == ["volumes_unknown"]
    assert checks_windows.expected_verdict(unknown) is Verdict.application_unverified
    assert list(warned(found(volumes=[Filesystem("C:\\", "\\\\?\\Volume{1}\\", "NTFS", ())]))) == ["volume_disk_unknown"]


def volume(mountpoint: str, kind: str, *disks: str) -> Filesystem:
    return Filesystem(mountpoint, "\\\\?\\Volume{2}\\", kind, disks)


SYSTEM = Filesystem("C:\\", "\\\\?\\Volume{1}\\", "NTFS", ("vda",))
EFI = Filesystem("System Reserved", "\\\\?\\Volume{3}\\", "FAT32", ("vda",))


@pytest.mark.parametrize("kind", ["FAT", "FAT32", "exFAT"])
def test_trap_18_a_volume_as_removable_disks_have_it_may_not_be_held_wherever_it_lies(kind: str) -> None:
    volumes = [SYSTEM, volume("E:\\", kind, "vdb")]
    assert list(warned(found(volumes=volumes, taken=frozenset({"vda"})))) == ["volumes_may_not_be_frozen"]


@pytest.mark.parametrize(("disks", "codes"), [(("vda",), ["volumes_not_frozen"]), ((), ["volumes_not_frozen"]), (("sda",), [])])
def test_trap_18_a_volume_that_vss_never_holds_matters_only_on_a_disk_of_the_job(disks: tuple[str, ...], codes: list[str]) -> None:
    assert list(warned(found(volumes=[SYSTEM, volume("D:\\", "CDFS", *disks)], taken=frozenset({"vda"})))) == codes


def test_without_a_known_set_of_disks_every_volume_matters() -> None:
    assert list(warned(found(volumes=[volume("D:\\", "CDFS", "sda")], taken=None))) == ["volumes_not_frozen"]


def test_the_efi_partition_of_a_guest_is_not_warned_of() -> None:
    assert warned(found(volumes=[SYSTEM, EFI], taken=frozenset({"vda"}))) == {}


def test_a_fat_volume_that_windows_calls_fixed_is_not_warned_of() -> None:
    data = volume("E:\\", "exFAT", "vdb")
    fixed = dict.fromkeys((SYSTEM.name.lower(), data.name.lower()), DriveType.fixed)
    assert warned(found(volumes=[SYSTEM, data], taken=frozenset({"vda", "vdb"}), drive_types=fixed)) == {}


@pytest.mark.parametrize("kind", ["ZFS", "RAW", "CDFS"])
def test_a_volume_that_is_not_held_is_named_and_the_verdict_is_expected_to_be_lower(kind: str) -> None:
    data = volume("E:\\", kind, "vdb")
    fixed = dict.fromkeys((SYSTEM.name.lower(), data.name.lower()), DriveType.fixed)
    expected = found(volumes=[SYSTEM, data], taken=frozenset({"vda", "vdb"}), drive_types=fixed)
    assert set(warned(expected)) == {"volumes_not_frozen", "disk_not_covered"}
    assert checks_windows.expected_verdict(expected) is Verdict.filesystem


def test_every_fault_of_an_old_agent_is_a_check_with_a_remedy() -> None:
    generation = generation_of("2.9.0")
    faults = warned(found(generation=generation))
    assert generation.faults
    assert {fault.code: fault.remedy for fault in generation.faults} == faults
