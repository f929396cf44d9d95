"""A Windows guest that cannot be frozen: whether VSS is the cause, or somebody who blocked a command."""

import pytest

from service.errors import AgentCommandBlocked, AgentCommandFailed, AgentNotAnswering, StillpointError, VssNotUsable, WindowsCommandBlocked
from service.model.inventory import AgentFacts, DomainState, Survey
from service.model.windows.vss_usable import FREEZE_COMMANDS, why_agent_fails, why_not_offered

pytestmark = pytest.mark.windows

ALL = (*FREEZE_COMMANDS, "guest-get-fsinfo", "guest-fsfreeze-freeze-list", "guest-exec")
DISABLED_WITHOUT_VSS = (*FREEZE_COMMANDS, "guest-get-fsinfo")


def guest(*disabled: str, version: str = "107.0.1", system: str = "mswindows") -> Survey:
    commands = {command: command not in disabled for command in ALL}
    return Survey("sql1", DomainState.running, [], AgentFacts(True, version=version, commands=commands, os={"id": system}))


def test_an_agent_that_offers_every_freeze_command_has_nothing_against_it() -> None:
    assert why_not_offered(guest()) is None


@pytest.mark.parametrize("version", ["2.12.0", "8.2.7", "107.0.1"])
def test_the_commands_that_agents_up_to_9_0_disable_together_mean_that_vss_is_not_usable(version: str) -> None:
    why = why_not_offered(guest(*DISABLED_WITHOUT_VSS, version=version))
    assert isinstance(why, VssNotUsable)
    assert version in why.detail


@pytest.mark.parametrize("disabled", [*[(command,) for command in FREEZE_COMMANDS], FREEZE_COMMANDS])
def test_fewer_commands_than_those_were_blocked_by_somebody(disabled: tuple[str, ...]) -> None:
    why = why_not_offered(guest(*disabled))
    assert (type(why), why.facts["command"] if why else None) == (WindowsCommandBlocked, disabled[0])


@pytest.mark.parametrize("version", ["9.1.0", "109.1.0"])
def test_an_agent_since_9_1_disables_nothing_without_vss_so_somebody_blocked_it(version: str) -> None:
    assert type(why_not_offered(guest(*DISABLED_WITHOUT_VSS, version=version))) is WindowsCommandBlocked


def test_linux_has_no_vss() -> None:
    assert type(why_not_offered(guest(*DISABLED_WITHOUT_VSS, system="debian"))) is AgentCommandBlocked


@pytest.mark.parametrize("suffix", ["", ": ", ": Windows error 0x80040154: Class not registered"])
def test_the_words_of_newer_agents_mean_that_vss_is_not_usable(suffix: str) -> None:
    said = f"fsfreeze not possible as VSS failed to initialize{suffix}"
    why = why_agent_fails("sql1", AgentCommandFailed(domain="sql1", command="guest-fsfreeze-status", message=said))
    assert isinstance(why, VssNotUsable)
    assert said in why.detail


@pytest.mark.parametrize(
    "fault",
    [
        AgentCommandFailed(domain="sql1", command="guest-info", message="out of memory"),
        AgentNotAnswering(domain="sql1", command="guest-ping", timeout_ms=5000, message="VSS failed to initialize"),
    ],
)
def test_any_other_fault_stays_what_it_is(fault: StillpointError) -> None:
    assert why_agent_fails("sql1", fault) is fault
