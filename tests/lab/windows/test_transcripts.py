"""The simulator speaks as the transcripts of real agents do, line by line."""

import json
from typing import Any

import pytest

from tests.lab.windows.talk import Talk

pytestmark = pytest.mark.windows

VSSADMIN = {"path": "vssadmin.exe", "arg": ["list", "writers"], "capture_output": True}


def test_sync_delimited_answers_the_mark_with_an_error_and_then_announces_its_reply() -> None:
    assert Talk().send(b'\xff{"execute":"guest-sync-delimited","arguments":{"id":81985529}}\n') == [
        b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\\uFFFD\'"}}\n',
        b'\xff{"return": 81985529}\n',
    ]


def test_sync_as_libvirt_sends_it_and_ping() -> None:
    talk = Talk()
    assert talk.send(b'{"execute":"guest-sync", "arguments":{"id":1795390665123}}\n') == [b'{"return": 1795390665123}\n']
    assert talk.send(b'{"execute":"guest-ping"}\n') == [b'{"return": {}}\n']


@pytest.mark.parametrize(
    ("line", "desc"),
    [
        (b"{nonsense\n", "JSON parse error, expecting value"),
        (b'{"arguments": {}}\n', "QMP input lacks member 'execute'"),
        (b'{"execute": "guest-sync"}\n', "Parameter 'id' is missing"),
    ],
)
def test_nonsense_is_answered_with_an_error(line: bytes, desc: str) -> None:
    (reply,) = Talk().send(line)
    assert json.loads(reply)["error"] == {"class": "GenericError", "desc": desc}


def _enabled(talk: Talk) -> dict[str, bool]:
    return {entry["name"]: entry["enabled"] for entry in talk.value("guest-info")["supported_commands"]}


def test_info_lists_what_windows_cannot_do_as_disabled_up_to_9_0_and_not_at_all_later() -> None:
    assert _enabled(Talk())["guest-get-memory-blocks"] is False
    assert "guest-get-memory-blocks" not in _enabled(Talk("healthy-2025"))
    assert Talk().value("guest-info")["version"] == "107.0.1"


def test_while_frozen_six_commands_are_enabled() -> None:
    talk = Talk()
    talk.ask("guest-fsfreeze-freeze")
    assert sorted(name for name, enabled in _enabled(talk).items() if enabled) == [
        "guest-fsfreeze-status",
        "guest-fsfreeze-thaw",
        "guest-info",
        "guest-ping",
        "guest-sync",
        "guest-sync-delimited",
    ]


def test_osinfo_of_server_2022() -> None:
    assert Talk().value("guest-get-osinfo") == {
        "name": "Microsoft Windows",
        "kernel-release": "20348",
        "version": "Microsoft Windows Server 2022",
        "variant": "server",
        "pretty-name": "Windows Server 2022 Standard",
        "version-id": "2022",
        "variant-id": "server",
        "kernel-version": "10.0",
        "machine": "x86_64",
        "id": "mswindows",
    }


def test_osinfo_of_windows_7_has_the_missing_comma() -> None:
    assert Talk("win7-client").value("guest-get-osinfo") == {
        "name": "Microsoft Windows",
        "kernel-release": "7601",
        "version": "Microsoft Windows 77",
        "variant": "client",
        "pretty-name": "Windows 7 Professional",
        "variant-id": "client",
        "kernel-version": "6.1",
        "machine": "x86_64",
        "id": "mswindows",
    }


@pytest.mark.parametrize(
    ("system", "agent", "version_id", "build"),
    [
        ("2022", "101.2.0", "2019", "20348"),
        ("2025", "107.0.1", "2022", "26100"),
        ("11", "102.6.0", "10", "22631"),
        ("11", "107.0.1", "11", "22631"),
        ("2012r2", "107.0.1", "2012r2", "9600"),
    ],
)
def test_a_system_newer_than_the_agent_is_reported_as_an_older_one(system: str, agent: str, version_id: str, build: str) -> None:
    said = Talk("healthy-2022", {"system": {"name": system}, "agent": {"version": agent}}).value("guest-get-osinfo")
    assert (said["version-id"], said["kernel-release"]) == (version_id, build)


def test_osinfo_was_unknown_before_2_10() -> None:
    refused = Talk("healthy-2022", {"agent": {"version": "7.3.2"}}).error("guest-get-osinfo")
    assert refused == ("CommandNotFound", "The command guest-get-osinfo has not been found")


def test_fsinfo_names_volumes_and_the_disks_under_them() -> None:
    assert Talk("volumes-not-frozen").value("guest-get-fsinfo")[:2] == [
        {
            "name": "\\\\?\\Volume{5f0a3c1e-0000-0000-0000-100000000000}\\",
            "total-bytes": 52428795904,
            "mountpoint": "C:\\",
            "disk": [_first_disk()],
            "used-bytes": 18102345728,
            "type": "NTFS",
        },
        {
            "name": "\\\\?\\Volume{5f0a3c1e-0000-0000-0000-500600000000}\\",
            "mountpoint": "System Reserved",
            "disk": [_first_disk()],
            "type": "NTFS",
        },
    ]


def _first_disk() -> dict[str, Any]:
    return {
        "serial": "serial-vda",
        "bus-type": "scsi",
        "bus": 0,
        "unit": 0,
        "pci-controller": {"bus": 0, "slot": 5, "domain": 0, "function": 0},
        "dev": "\\\\.\\PhysicalDrive0",
        "target": 0,
    }


def test_disks_are_listed_since_5_2() -> None:
    assert Talk().value("guest-get-disks")[0] == {"name": "\\\\.\\PhysicalDrive0", "partition": False, "address": _first_disk()}
    assert Talk("rhev-agent").error("guest-get-disks")[1] == "The command guest-get-disks has not been found"
    assert "serial" not in Talk("disks-without-serials").value("guest-get-disks")[0]["address"]
    unknown = {"domain": -1, "bus": -1, "slot": -1, "function": -1}
    assert Talk("disks-unknown").value("guest-get-disks")[0]["address"]["pci-controller"] == unknown


def test_freeze_counts_fixed_volumes_and_a_second_thaw_says_0() -> None:
    talk = Talk()
    assert talk.send(b'{"execute":"guest-fsfreeze-freeze"}\n') == [b'{"return": 3}\n']
    assert talk.send(b'{"execute":"guest-fsfreeze-status"}\n') == [b'{"return": "frozen"}\n']
    assert talk.error("guest-exec", **VSSADMIN) == (
        "CommandNotFound",
        "Command guest-exec has been disabled: the agent is in frozen state",
    )
    assert talk.send(b'{"execute":"guest-fsfreeze-thaw"}\n') == [b'{"return": 3}\n']
    assert talk.send(b'{"execute":"guest-fsfreeze-thaw"}\n') == [b'{"return": 0}\n']
    assert talk.value("guest-fsfreeze-status") == "thawed"


def test_a_removable_volume_is_not_counted() -> None:
    assert Talk("volumes-not-frozen").value("guest-fsfreeze-freeze") == 3


@pytest.mark.parametrize(
    ("version", "desc"),
    [
        ("5.2.0", "The command guest-exec has been disabled for this instance"),
        ("6.0.0", "Command guest-exec has been disabled: the agent is in frozen state"),
        ("108.0.2", "Command guest-exec has been disabled: the agent is in frozen state"),
        ("9.1.0", "Command guest-exec has been disabled: the command is not allowed"),
        ("109.1.0", "Command guest-exec has been disabled: the command is not allowed"),
    ],
)
def test_what_is_refused_while_frozen_is_refused_in_the_words_of_the_version(version: str, desc: str) -> None:
    talk = Talk("healthy-2022", {"agent": {"version": version}})
    talk.ask("guest-fsfreeze-freeze")
    assert talk.error("guest-exec", **VSSADMIN) == ("CommandNotFound", desc)
    assert talk.error("guest-fsfreeze-freeze")[0] == "CommandNotFound"


@pytest.mark.parametrize(
    ("scenario", "desc"),
    [
        ("freeze-exited", "DoSnapshotSet exited without Frozen event: Unspecified error"),
        ("freeze-exited-hex", "DoSnapshotSet exited without Frozen event: Windows error 0x80004005: Unbekannter Fehler"),
        ("heavy-io", "timeout when try to receive Frozen event from VSS provider: Unspecified error"),
        ("writer-infrastructure", "failed to gather writer metadata: "),
        ("other-requester", "failed to start snapshot set: "),
        ("volume-refused", "failed to add D: to snapshot set: "),
    ],
)
def test_a_freeze_that_fails_leaves_the_guest_thawed(scenario: str, desc: str) -> None:
    talk = Talk(scenario)
    assert talk.error("guest-fsfreeze-freeze") == ("GenericError", desc)
    assert talk.value("guest-fsfreeze-status") == "thawed"
    assert talk.value("guest-fsfreeze-thaw") == 0


@pytest.mark.parametrize(
    ("scenario", "desc"),
    [
        ("writer-infrastructure", "failed to gather writer metadata: Windows error 0x80042318: "),
        ("other-requester", "failed to start snapshot set: Windows error 0x80042316: "),
        ("volume-refused", "failed to add D: to snapshot set: Windows error 0x8004230e: "),
    ],
)
def test_from_10_2_on_errors_carry_the_hresult(scenario: str, desc: str) -> None:
    assert Talk(scenario, {"agent": {"version": "10.2.0"}}).error("guest-fsfreeze-freeze") == ("GenericError", desc)


def test_heavy_io_takes_the_whole_limit_of_the_agent() -> None:
    talk = Talk("heavy-io")
    talk.ask("guest-fsfreeze-freeze")
    assert talk.elapsed_s == 60.0
    old = Talk("heavy-io-old")
    old.ask("guest-fsfreeze-freeze")
    assert old.elapsed_s == 10.0


def test_a_plan_goes_on_to_its_next_entry() -> None:
    talk = Talk("other-requester")
    talk.error("guest-fsfreeze-freeze")
    assert talk.value("guest-fsfreeze-freeze") == 3


def test_dead_vss_disables_the_commands_up_to_9_0_but_forgets_freeze_list() -> None:
    talk = Talk("vss-dead-old")
    for command in ("guest-fsfreeze-freeze", "guest-fsfreeze-status", "guest-fsfreeze-thaw", "guest-get-fsinfo"):
        assert talk.error(command) == ("CommandNotFound", f"Command {command} has been disabled")
        assert _enabled(talk)[command] is False
    assert talk.error("guest-fsfreeze-freeze-list") == ("GenericError", "this feature or command is not currently supported")


def test_dead_vss_is_an_error_from_9_1_on() -> None:
    talk = Talk("vss-dead-new")
    assert talk.error("guest-fsfreeze-freeze") == ("GenericError", "fsfreeze not possible as VSS failed to initialize")
    assert _enabled(talk)["guest-fsfreeze-freeze"] is True
    assert talk.value("guest-get-fsinfo")


def test_a_late_thaw_errors_and_yet_thaws_while_status_said_frozen() -> None:
    talk = Talk()
    talk.ask("guest-fsfreeze-freeze")
    talk.clock.sleep(25)
    assert talk.value("guest-fsfreeze-status") == "frozen"
    assert not talk.agent.holds_writes()
    assert talk.send(b'{"execute":"guest-fsfreeze-thaw"}\n') == [
        b'{"error": {"class": "GenericError", "desc": "couldn\'t hold writes: fsfreeze is limited up to 10 seconds: "}}\n'
    ]
    assert talk.value("guest-fsfreeze-status") == "thawed"
    assert talk.value("guest-fsfreeze-thaw") == 0
    session = talk.agent.sessions[0]
    assert session.ended_by == "volsnap"
    assert 9.9 < session.writes_released_s - session.began_s <= 10.0


@pytest.mark.parametrize(("held_s", "hresult"), [(11, "0x80042314"), (61, "0x8004230f")])
def test_a_late_thaw_says_which_timeout_it_was_from_10_2_on(held_s: float, hresult: str) -> None:
    talk = Talk("healthy-2022", {"agent": {"version": "10.2.0"}})
    desc = talk.freeze_and_thaw(held_s)["error"]["desc"]
    assert desc == f"couldn't hold writes: fsfreeze is limited up to 10 seconds: Windows error {hresult}: "


def test_the_hold_lasts_up_to_its_limit_and_not_longer() -> None:
    assert Talk().freeze_and_thaw(9.8) == {"return": 3}
    assert "error" in Talk().freeze_and_thaw(10.0)


@pytest.mark.parametrize(
    ("scenario", "desc"),
    [
        ("thaw-provider-error", "unexpected error in VSS provider: "),
        ("thaw-snapshot-set-failed", "failed to do snapshot set: "),
        ("thaw-complete-failed", "failed to complete backup: "),
    ],
)
def test_a_thaw_that_fails_thaws(scenario: str, desc: str) -> None:
    talk = Talk(scenario)
    assert talk.freeze_and_thaw()["error"]["desc"] == desc
    assert talk.value("guest-fsfreeze-status") == "thawed"


def test_server_2008_calls_an_aborted_session_a_success() -> None:
    talk = Talk("server-2008")
    assert talk.freeze_and_thaw() == {"return": 3}
    assert talk.agent.sessions[0].is_aborted
    healthy = Talk()
    assert healthy.freeze_and_thaw() == {"return": 3}
    assert not healthy.agent.sessions[0].is_aborted


@pytest.mark.parametrize(("scenario", "count"), [("count-zero", 0), ("count-uninitialised", 32759), ("count-negative", -858993460)])
def test_an_absurd_count_holds_nothing_though_the_agent_says_frozen(scenario: str, count: int) -> None:
    talk = Talk(scenario)
    assert talk.value("guest-fsfreeze-freeze") == count
    assert talk.value("guest-fsfreeze-status") == "frozen"
    assert not talk.agent.holds_writes()
    assert talk.value("guest-fsfreeze-thaw") == 0


def test_the_agent_does_one_command_at_a_time_and_the_others_wait() -> None:
    talk = Talk("freeze-slow")
    freeze = talk.agent.handle_line(b'{"execute":"guest-fsfreeze-freeze"}\n')
    ping = talk.agent.handle_line(b'{"execute":"guest-ping"}\n')
    refused = talk.agent.handle_line(b'{"execute":"guest-get-osinfo"}\n')
    assert freeze[0].after_s == 9.0
    assert ping[0].after_s == pytest.approx(9.001)
    assert b"frozen state" in refused[0].line


def test_an_orphan_freeze_holds_after_its_host_gave_up() -> None:
    talk = Talk("orphan-freeze")
    talk.agent.handle_line(b'{"execute":"guest-fsfreeze-freeze"}\n')
    talk.clock.sleep(5)
    assert not talk.agent.holds_writes()
    talk.clock.sleep(7.5)
    assert talk.agent.holds_writes()
    assert talk.value("guest-fsfreeze-thaw") == 3
    assert not talk.agent.holds_writes()


def test_an_agent_that_restarts_while_frozen_is_thawed_and_deaf_for_a_while() -> None:
    talk = Talk("agent-restart")
    talk.ask("guest-fsfreeze-freeze")
    talk.clock.sleep(0.25)
    assert talk.send(b'{"execute":"guest-ping"}\n') == []
    talk.clock.sleep(0.4)
    assert talk.value("guest-fsfreeze-status") == "thawed"
    assert talk.value("guest-fsfreeze-thaw") == 0
    assert talk.agent.sessions[0].ended_by == "restart"


def test_an_agent_that_hangs_answers_nothing_any_more() -> None:
    talk = Talk("thaw-hangs")
    talk.ask("guest-fsfreeze-freeze")
    assert talk.send(b'{"execute":"guest-fsfreeze-thaw"}\n') == []
    talk.clock.sleep(3600)
    assert talk.send(b'{"execute":"guest-ping"}\n') == []


def test_freeze_list_takes_letters_folders_and_guids_and_an_empty_list_means_all() -> None:
    talk = Talk("volumes-not-frozen")
    guid = "\\\\?\\Volume{5f0a3c1e-0000-0000-0000-500600000000}\\"
    assert talk.value("guest-fsfreeze-freeze-list", mountpoints=["c:\\", "C:\\spanned", guid]) == 3
    talk.ask("guest-fsfreeze-thaw")
    assert talk.value("guest-fsfreeze-freeze-list", mountpoints=[]) == 3
    talk.ask("guest-fsfreeze-thaw")
    assert talk.error("guest-fsfreeze-freeze-list", mountpoints=["X:\\"])[1] == "failed to add X:\\ to snapshot set: "


@pytest.mark.parametrize(
    ("scenario", "desc"),
    [
        ("exec-blocked", "Command guest-exec has been disabled"),
        ("exec-blocked-new", "Command guest-exec has been disabled: the command is not allowed"),
    ],
)
def test_a_blocked_guest_exec_is_refused_in_the_words_of_the_version(scenario: str, desc: str) -> None:
    talk = Talk(scenario)
    assert talk.error("guest-exec", **VSSADMIN) == ("CommandNotFound", desc)
    assert _enabled(talk)["guest-exec"] is False


def test_the_status_of_a_program_can_be_read_once() -> None:
    talk = Talk()
    assert talk.value("guest-exec", **VSSADMIN) == {"pid": 4712}
    assert talk.value("guest-exec-status", pid=4712) == {"exited": False}
    assert sorted(talk.value("guest-exec-status", pid=4712)) == ["exitcode", "exited", "out-data"]
    assert talk.error("guest-exec-status", pid=4712) == ("GenericError", "PID lld does not exist")
    old = Talk("healthy-2022", {"agent": {"version": "106.0.1"}})
    assert old.error("guest-exec-status", pid=4712) == ("GenericError", "Invalid parameter 'pid'")


def test_capture_modes_are_known_since_8_1() -> None:
    old = Talk("healthy-2022", {"agent": {"version": "7.2.0"}})
    refused = old.error("guest-exec", path="vssadmin.exe", capture_output="separated")
    assert refused[1] == "Invalid parameter type for 'capture-output', expected: boolean"
    assert Talk().value("guest-exec", path="vssadmin.exe", capture_output="separated") == {"pid": 4712}
