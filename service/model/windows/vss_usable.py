"""Why a Windows guest cannot be frozen: VSS is not usable, or a command of the agent is blocked (F§1.5)."""

from service.errors import AgentCommandBlocked, AgentCommandFailed, StillpointError, VssNotUsable, WindowsCommandBlocked
from service.model.inventory import Survey
from service.model.windows.agent_generation import DisabledText, generation_of

FREEZE_COMMANDS = ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status")

_DISABLED_WITHOUT_VSS = (*FREEZE_COMMANDS, "guest-get-fsinfo")
_LOAD_FAILED = "VSS failed to initialize"
_NOT_LISTED = "guest-info lists it as disabled or not at all"


def why_agent_fails(domain: str, fault: StillpointError) -> StillpointError:
    """An agent from QEMU 9.1 on answers the first freeze command with an error if VSS could not be loaded. An agent on Linux never does."""
    if isinstance(fault, AgentCommandFailed) and _LOAD_FAILED in str(fault.facts["message"]):
        return VssNotUsable(domain=domain, why=f"the agent answers {fault.facts['command']} with “{fault.facts['message']}”")
    return fault


def why_not_offered(survey: Survey) -> StillpointError | None:
    """The error if the agent does not offer every freeze command; None: the agent offers all of them."""
    missing = [command for command in FREEZE_COMMANDS if not survey.agent.allows(command)]
    if not missing:
        return None
    if not survey.is_windows:
        return AgentCommandBlocked(domain=survey.domain, command=missing[0], message=_NOT_LISTED)
    # Up to QEMU 9.0 an agent that cannot load VSS disables exactly these. A later agent never does: there an administrator blocked them.
    is_older = generation_of(survey.agent.version).disabled_text is not DisabledText.not_allowed
    if is_older and not any(survey.agent.allows(command) for command in _DISABLED_WITHOUT_VSS):
        agent = f"the agent {survey.agent.version or 'of unknown version'}"
        why = f"{agent} has disabled the freeze commands and guest-get-fsinfo, as agents up to QEMU 9.0 do if they cannot load VSS"
        return VssNotUsable(domain=survey.domain, why=why)
    return WindowsCommandBlocked(domain=survey.domain, command=missing[0], message=_NOT_LISTED)
