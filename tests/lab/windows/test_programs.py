"""What the simulated Windows prints: vssadmin, reg and wevtutil."""

import base64
import re
from xml.etree import ElementTree

import pytest

from tests.lab.windows.talk import Talk

pytestmark = pytest.mark.windows

LIST = ("vssadmin.exe", "list", "writers")
VSS_KEY = r"HKLM\SYSTEM\CurrentControlSet\Services\QEMU Guest Agent VSS Provider"
REG = ("reg.exe", "query", VSS_KEY, "/v", "VssOption")
_EVENT = "{http://schemas.microsoft.com/win/2004/08/events/event}"


def _block(text: str, writer: str) -> list[str]:
    lines = text.split("\r\n")
    start = next(number for number, line in enumerate(lines) if writer in line)
    return lines[start : start + 6]


def test_vssadmin_lists_writers_after_a_freeze_that_one_of_them_failed() -> None:
    talk = Talk("sql-writer-failed", {"system": {"name": "2008r2"}})
    assert _block(talk.output(*LIST).decode("cp437"), "SqlServerWriter")[3:5] == ["   State: [1] Stable", "   Last error: No error"]
    assert talk.freeze_and_thaw() == {"return": 3}
    text = talk.output(*LIST).decode("cp437")
    assert text.split("\r\n")[:3] == [
        "vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool",
        "(C) Copyright 2001-2005 Microsoft Corp.",
        "",
    ]
    block = _block(text, "SqlServerWriter")
    assert block == [
        "Writer name: 'SqlServerWriter'",
        "   Writer Id: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}",
        block[2],
        "   State: [9] Failed",
        "   Last error: Timed out",
        "",
    ]
    assert re.fullmatch(r"   Writer Instance Id: \{[0-9a-f-]{36}\}", block[2])
    assert text.replace("\r\n", "").count("\n") == 0


@pytest.mark.parametrize(
    ("scenario", "code_page", "block"),
    [
        (
            "german-retryable",
            "cp850",
            [
                'Verfassername: "SqlServerWriter"',
                "   Verfasserkennung: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}",
                "   Status: [8] Fehlgeschlagen",
                "   Letzter Fehler: Wiederholbarer Fehler",
            ],
        ),
        (
            "french-timed-out",
            "cp850",
            [
                "Nom du rédacteur : 'SqlServerWriter'",
                "   ID du rédacteur : {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}",
                "   État : [9] Échec",
                "   Dernière erreur : Délai dépassé",
            ],
        ),
        (
            "japanese-timed-out",
            "cp932",
            [
                "ライター名: 'SqlServerWriter'",
                "   ライター ID: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}",
                "   状態: [9] 失敗",
                "   最後のエラー: タイムアウト",
            ],
        ),
    ],
)
def test_vssadmin_speaks_the_language_and_code_page_of_the_guest(scenario: str, code_page: str, block: list[str]) -> None:
    talk = Talk(scenario)
    talk.freeze_and_thaw()
    printed = _block(talk.output(*LIST).decode(code_page), "SqlServerWriter")
    assert [*printed[:2], *printed[3:5]] == block


def test_polish_is_code_page_852() -> None:
    text = Talk("polish-healthy").output(*LIST).decode("cp852")
    assert "   Ostatni błąd: Nie ma błędów." in text.split("\r\n")


def _state(talk: Talk, writer: str) -> str:
    return _block(talk.output(*LIST).decode("cp437"), writer)[3].strip()


def test_writers_settle_while_they_are_asked() -> None:
    talk = Talk("writers-settle")
    assert _state(talk, "SqlServerWriter") == "State: [1] Stable"
    talk.freeze_and_thaw()
    assert [_state(talk, "SqlServerWriter") for _ in range(3)] == [
        "State: [5] Waiting for completion",
        "State: [5] Waiting for completion",
        "State: [1] Stable",
    ]


def test_a_freeze_that_fails_before_the_writers_are_told_leaves_them_alone() -> None:
    talk = Talk("sql-writer-failed", {"freeze": [{"fails": "start_snapshot_set"}, {}]})
    talk.error("guest-fsfreeze-freeze")
    assert _state(talk, "SqlServerWriter") == "State: [1] Stable"
    talk.freeze_and_thaw()
    assert _state(talk, "SqlServerWriter") == "State: [9] Failed"


def test_a_writer_can_vanish_restart_or_be_there_twice() -> None:
    for scenario, before, after in [("writer-vanishes", 1, 0), ("writer-restarted", 1, 1), ("two-instances", 2, 2)]:
        talk = Talk(scenario)
        assert talk.output(*LIST).count(b"'SqlServerWriter'") == before
        talk.freeze_and_thaw()
        assert talk.output(*LIST).count(b"'SqlServerWriter'") == after
    restarted = Talk("writer-restarted")
    old = restarted.output(*LIST)
    restarted.freeze_and_thaw()
    assert restarted.output(*LIST) != old


def test_output_that_was_cut_says_so_by_a_lone_false_or_by_true() -> None:
    cut = Talk("cut-off-output").run(*LIST)
    assert len(base64.b64decode(cut["out-data"])) == 700
    assert cut["out-truncated"] is False
    assert Talk("cut-off-output-fixed").run(*LIST)["out-truncated"] is True
    assert "out-truncated" not in Talk().run(*LIST)
    whole = Talk("healthy-2022", {"agent": {"version": "10.2.0"}}).run(*LIST)
    assert whole["out-truncated"] is False


def test_vssadmin_can_fail_print_garbage_or_find_no_writer() -> None:
    failed = Talk("vssadmin-error").run(*LIST)
    assert failed["exitcode"] == 2
    assert b"Writer name" not in base64.b64decode(failed["out-data"])
    assert Talk("vssadmin-no-writers").output(*LIST).count(b"\r\n") == 3
    garbage = Talk("vssadmin-garbage-after")
    assert b"System Writer" in garbage.output(*LIST)
    assert b"not-a-guid" in garbage.output(*LIST)


def test_a_lost_reply_is_a_lost_output() -> None:
    talk = Talk("exec-reply-lost")
    pid = talk.value("guest-exec", path="vssadmin.exe", arg=["list", "writers"], capture_output=True)["pid"]
    assert talk.send(b'{"execute":"guest-exec-status","arguments":{"pid":%d}}\n' % pid) == []
    assert talk.error("guest-exec-status", pid=pid)[1] == "PID lld does not exist"


def test_reg_prints_the_vss_option() -> None:
    assert Talk("healthy-2022").output(*REG).decode().split("\r\n") == [
        "",
        r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\QEMU Guest Agent VSS Provider",
        "    VssOption    REG_DWORD    0x5",
        "",
        "",
    ]
    assert b"    VssOption    REG_SZ    copy please\r\n" in Talk("vss-option-garbage").output(*REG)


def test_reg_ends_with_1_when_there_is_no_such_value() -> None:
    absent = Talk("vss-option-absent", {"system": {"language": "de"}}).run(*REG)
    assert absent["exitcode"] == 1
    assert "out-data" not in absent
    assert "Registrierungsschlüssel" in base64.b64decode(absent["err-data"]).decode("cp850")
    assert Talk().run("reg.exe", "query", VSS_KEY, "/v", "Other")["exitcode"] == 1


def _events(talk: Talk, *options: str) -> list[tuple[int, int, str]]:
    """Record id, event id and first datum of each."""
    root = ElementTree.fromstring(b"<Events>" + talk.output("wevtutil.exe", "qe", "Application", *options) + b"</Events>")
    return [
        (int(_text(event, "EventRecordID")), int(_text(event, "EventID")), event.findtext(f"{_EVENT}EventData/{_EVENT}Data", ""))
        for event in root
    ]


def _text(event: ElementTree.Element, name: str) -> str:
    return event.findtext(f"{_EVENT}System/{_EVENT}{name}", "")


def _sql_after(record: int) -> str:
    return f"/q:*[System[(EventID=3197 or EventID=3198) and (EventRecordID>{record})]]"


def test_sql_events_newer_than_a_remembered_record_are_those_of_this_freeze() -> None:
    talk = Talk("healthy-2022")
    ((newest, _, _),) = _events(talk, "/c:1", "/rd:true", "/f:xml")
    assert len(_events(talk, "/q:*[System[(EventID=3197 or EventID=3198)]]", "/f:xml")) == 16  # two older pairs of four databases
    assert _events(talk, _sql_after(newest), "/f:xml") == []
    talk.freeze_and_thaw()
    found = _events(talk, _sql_after(newest), "/f:xml", "/c:256")
    assert [(event_id, database) for _, event_id, database in found] == [
        *[(3197, database) for database in ("master", "model", "msdb", "crm")],
        *[(3198, database) for database in ("master", "model", "msdb", "crm")],
    ]
    assert found[0][0] == newest + 1
    assert [record for record, _, _ in _events(talk, f"/q:*[System[(EventRecordID>={newest})]]", "/c:2")] == [newest, newest + 1]
    assert _events(talk, _sql_after(newest), "/f:xml", "/c:1", "/rd:true")[0][1:] == (3198, "crm")


def test_sql_server_can_stay_silent_or_never_resume() -> None:
    silent = Talk("sql-silent")
    ((newest, _, _),) = _events(silent, "/c:1", "/rd:true")
    silent.freeze_and_thaw()
    assert _events(silent, _sql_after(newest)) == []
    stuck = Talk("sql-not-resumed")
    stuck.freeze_and_thaw()
    assert {event_id for _, event_id, _ in _events(stuck, _sql_after(0))} == {3197}


def test_the_event_log_can_be_closed_or_cleared() -> None:
    closed = Talk("event-log-closed").run("wevtutil.exe", "qe", "Application", "/c:1")
    assert (closed["exitcode"], "out-data" in closed) == (5, False)
    cleared = Talk("event-log-cleared")
    ((newest, _, _),) = _events(cleared, "/c:1", "/rd:true")
    cleared.freeze_and_thaw()
    assert _events(cleared, _sql_after(newest)) == []
    assert len(_events(cleared, _sql_after(0))) == 8


@pytest.mark.parametrize("query", ["/q:*[System[EventID=3197", "/q:*[EventData[Data='x']]", "/q:*[System[(TimeCreated)]]"])
def test_a_query_that_the_log_does_not_understand_is_an_error(query: str) -> None:
    assert Talk().run("wevtutil.exe", "qe", "Application", query)["exitcode"] == 15001


def test_any_program_can_be_put_into_a_scenario() -> None:
    changes = {"programs": [{"name": "qwinsta.exe", "arguments": ["/server"], "output": "né\r\n", "exit_code": 0xC0000005}]}
    status = Talk("healthy-2022", changes).run(r"C:\Windows\System32\qwinsta.exe", "/server:x")
    assert status["signal"] == 0xC0000005
    assert base64.b64decode(status["out-data"]) == "né\r\n".encode("cp437")
    assert "Failed to execute" in Talk().error("guest-exec", path="qwinsta.exe")[1]
