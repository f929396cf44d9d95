"""Which instances and databases a guest has is read by shape and number, and what makes no sense is not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows.sql_server import databases_in, instances_in, is_source, is_stopped, source_of

pytestmark = pytest.mark.windows

REGISTRY = (
    "\r\nHKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Microsoft SQL Server\\Instance Names\\SQL\r\n"
    "    MSSQLSERVER    REG_SZ    MSSQL16.MSSQLSERVER\r\n"
    "    CRM_2    REG_SZ    MSSQL15.CRM_2\r\n"
    "    MICROSOFT##WID    REG_SZ    MSSQL13.MICROSOFT##WID\r\n\r\n"
)


def test_instances_are_the_values_of_the_key_and_windows_own_is_none() -> None:
    assert instances_in(REGISTRY.encode()) == ["MSSQLSERVER", "CRM_2"]
    assert instances_in(b"ERROR: The system was unable to find the specified registry key or value.\r\n") == []


@pytest.mark.parametrize(("instance", "source"), [("MSSQLSERVER", "MSSQLSERVER"), ("CRM_2", "MSSQL$CRM_2")])
def test_the_provider_of_the_events_names_the_instance(instance: str, source: str) -> None:
    assert source_of(instance) == source
    assert is_source(source)
    assert is_source(source.lower())


def names(*databases: str) -> bytes:
    return "".join(f"{name.encode('utf-16-le').hex().upper()}\r\n" for name in databases).encode()


def test_names_of_databases_are_digits_in_whatever_language() -> None:
    assert databases_in(names("master", "Aufträge [2]", "Счёт", "日本")) == ("master", "Aufträge [2]", "Счёт", "日本")


@pytest.mark.parametrize(
    "output", [b"", b"\r\n", b"Login failed for user.\r\n", names("master") + b"(1 rows affected)\r\n", b"6D00\r\n6D\r\n"]
)
def test_anything_else_is_not_a_list_of_databases(output: bytes) -> None:
    assert databases_in(output) is None


def service(state: str, label: str = "STATE") -> bytes:
    lines = [
        "SERVICE_NAME: MSSQL$CRM ",
        "        TYPE               : 10  WIN32_OWN_PROCESS  ",
        f"        {label}              : {state} ",
        "                                (STOPPABLE, PAUSABLE, ACCEPTS_SHUTDOWN)",
        "        WIN32_EXIT_CODE    : 0  (0x0)",
    ]
    return "\r\n".join(["", *lines, ""]).encode()


def test_a_service_is_stopped_by_number_whatever_its_label_is() -> None:
    assert is_stopped(service("1  STOPPED"))
    assert is_stopped(service("1  STOPPED", "STATUS"))
    assert not is_stopped(service("4  RUNNING"))
    assert not is_stopped(b"[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\r\n")


@given(st.binary(max_size=200))
def test_nothing_that_a_program_prints_raises(output: bytes) -> None:
    instances_in(output)
    databases_in(output)
    is_stopped(output)
