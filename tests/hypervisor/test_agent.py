"""What a failed agent command means, told from libvirt's code and the agent's own words."""

from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentNotAnswering,
    DomainGone,
    DomainPaused,
    LibvirtCallFailed,
    LibvirtUnavailable,
    NoAgentChannel,
    StillpointError,
)
from service.hypervisor import agent
from service.hypervisor.guest import Guest
from tests.fakes import FakeDisk, FakeDomain, agent_error, agent_silent, connection_lost, libvirt_error
from tests.fakes.libvirt_errors import agent_busy, no_channel, no_domain, not_running

libvirt: Any = _libvirt
THAW = "guest-fsfreeze-thaw"


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


MEANINGS: list[tuple[Exception, type[StillpointError]]] = [
    (agent_silent(), AgentNotAnswering),
    (agent_silent("QEMU guest agent is not connected"), AgentNotAnswering),
    (agent_silent("Guest agent disappeared while executing command"), AgentNotAnswering),
    (agent_busy(), AgentBusy),
    (no_channel(), NoAgentChannel),
    (not_running(), DomainPaused),
    (not_running(libvirt.VIR_FROM_DOMAIN), DomainPaused),
    (no_domain("5d1c"), DomainGone),
    (connection_lost(), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", libvirt.VIR_FROM_RPC), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_RPC, "connection closed due to keepalive timeout", libvirt.VIR_FROM_RPC), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_INVALID_CONN, "invalid connection pointer in virDomainQemuAgentCommand"), LibvirtUnavailable),
    (agent_error(THAW, "Command guest-fsfreeze-thaw has been disabled"), AgentCommandBlocked),
    (agent_error(THAW, "Command guest-fsfreeze-thaw has been disabled: the agent is in frozen state"), AgentCommandBlocked),
    (agent_error(THAW, "Command guest-fsfreeze-thaw has been disabled: the command is not allowed"), AgentCommandBlocked),
    (agent_error(THAW, "The command guest-fsfreeze-thaw has been disabled for this instance"), AgentCommandBlocked),
    (agent_error(THAW, "The command guest-fsfreeze-thaw has not been found"), AgentCommandBlocked),
    (agent_error(THAW, "fsfreeze hook has failed with status 3"), AgentCommandFailed),
    (agent_error(THAW, "couldn't hold writes: fsfreeze is limited up to 10 seconds: "), AgentCommandFailed),
    (agent_error(THAW, ""), AgentCommandFailed),
    (libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: something else"), LibvirtCallFailed),
    (libvirt_error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: a flag"), LibvirtCallFailed),
]


@pytest.mark.parametrize(("raised", "meaning"), MEANINGS, ids=[f"{kind.__name__}-{number}" for number, (_, kind) in enumerate(MEANINGS)])
def test_the_meaning_of_an_error(domain: FakeDomain, raised: Exception, meaning: type[StillpointError]) -> None:
    domain.fail_next(THAW, raised)
    with pytest.raises(StillpointError) as caught:
        agent.call(domain, THAW)
    assert type(caught.value) is meaning
    assert caught.value.detail
    assert caught.value.remedy


def test_the_words_of_the_agent_are_kept_without_those_of_libvirt(domain: FakeDomain) -> None:
    domain.fail_next(THAW, agent_error(THAW, "failed to add D: to snapshot set: 'x': Windows error 0x8004230e: "))
    with pytest.raises(AgentCommandFailed) as caught:
        agent.call(domain, THAW)
    assert caught.value.facts["message"] == "failed to add D: to snapshot set: 'x': Windows error 0x8004230e:"


def test_a_time_limit_reaches_libvirt_in_whole_seconds_and_never_as_zero() -> None:
    limits: list[int] = []

    class Listening(FakeDomain):
        def agent_command(self, command: str, timeout_s: int) -> str:
            limits.append(timeout_s)
            return super().agent_command(command, timeout_s)

    listening = Listening("db1", [])
    for milliseconds in (1, 999, 1_000, 1_001, 120_000):
        agent.call(listening, "guest-ping", timeout_ms=milliseconds)
    assert limits == [1, 1, 1, 2, 120]


@pytest.mark.parametrize("reply", [{}, [], None, 7, {"error": {"class": "GenericError"}}, "return"])
def test_an_answer_that_is_none_is_not_believed(domain: FakeDomain, reply: Any) -> None:
    domain.answer_next("guest-ping", reply)
    with pytest.raises(AgentAnswerUnreadable, match="guest-ping"):
        agent.call(domain, "guest-ping")


@pytest.mark.parametrize("count", [None, "2", 2.0, [2], {"frozen": 2}, float("inf")])
def test_a_count_that_is_none_is_not_believed(domain: FakeDomain, count: Any) -> None:
    guest = Guest(domain, "fake:///")
    for command in ("guest-fsfreeze-freeze", THAW):
        domain.answer_next(command, {"return": count})
    with pytest.raises(AgentAnswerUnreadable):
        guest.freeze(None, 1_000)
    with pytest.raises(AgentAnswerUnreadable):
        guest.thaw(1_000)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("guest-exec", {"return": {}}),
        ("guest-exec", {"return": 7}),
        ("guest-exec-status", {"return": {"exitcode": 0}}),
        ("guest-exec-status", {"return": [True]}),
        ("guest-exec-status", {"return": {"exited": True, "exitcode": 0, "out-data": 7}}),
        ("guest-exec-status", {"return": {"exited": True, "exitcode": 0, "out-data": "x"}}),
    ],
)
def test_a_program_whose_result_makes_no_sense(domain: FakeDomain, command: str, reply: Any) -> None:
    domain.answer_next(command, reply)
    with pytest.raises(AgentAnswerUnreadable, match=command):
        Guest(domain, "fake:///").execute("/bin/sync", budget_ms=1_000)


def test_only_frozen_is_frozen(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    for said, expected in (("frozen", True), ("thawed", False), (True, False), ({"status": "frozen"}, False)):
        domain.answer_next("guest-fsfreeze-status", {"return": said})
        assert guest.is_frozen() is expected
