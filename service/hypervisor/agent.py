"""One command to the guest agent, and what its failure means (F§3, F§4.1)."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentNotAnswering,
    DomainGone,
    DomainPaused,
    LibvirtCallFailed,
    LibvirtCallTimedOut,
    LibvirtUnavailable,
    NoAgentChannel,
    StillpointError,
)
from service.hypervisor.handle import DomainHandle, LibvirtError, libvirt

PING_TIMEOUT_MS = 5_000
QUERY_TIMEOUT_MS = 10_000

LOCK_WAIT_MS = 30_000
"""libvirt's wait for the lock of another client's command (VIR_JOB_WAIT_TIME)."""
_HELD_BY = re.compile(r"state change lock \(held by ([^)]+)\)")
_CONNECTION_LOST = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)


def call(handle: DomainHandle, command: str, arguments: dict[str, Any] | None = None, *, timeout_ms: int = QUERY_TIMEOUT_MS) -> Any:
    """Send one command and return its `return` value.

    Raises AgentNotAnswering (no answer in time, not connected), AgentBusy (not sent at all), LibvirtCallTimedOut,
    AgentCommandBlocked, AgentCommandFailed (the agent answered with an error), AgentAnswerUnreadable, NoAgentChannel,
    DomainPaused, DomainGone, LibvirtUnavailable.
    """
    request: dict[str, Any] = {"execute": command}
    if arguments is not None:
        request["arguments"] = arguments
    try:
        reply = handle.agent_command(json.dumps(request), max(1, math.ceil(timeout_ms / 1000)))
    except LibvirtError as error:
        raise translate(handle, command, timeout_ms, error) from error
    except LibvirtCallTimedOut as error:
        raise LibvirtCallTimedOut(**{**error.facts, "call": command}) from error
    with reading(_name(handle), command):
        return json.loads(reply)["return"]


@contextmanager
def reading(domain: str, command: str) -> Iterator[None]:
    """For taking an answer apart: a guest is not trusted to give it the right form. Raises AgentAnswerUnreadable."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AgentAnswerUnreadable(domain=domain, command=command, reason=f"{type(error).__name__}: {error}") from error


def translate(handle: DomainHandle, command: str, timeout_ms: int, error: Any) -> StillpointError:
    """libvirt's error of an agent command as one of ours. The agent's own `class` is lost on the way (F§4.1)."""
    code, message, domain = error.get_error_code(), _clean(error.get_error_message()), _name(handle)
    if is_connection_lost(error):
        return LibvirtUnavailable(uri="the host's libvirt", reason=message)
    holder = lock_holder(error)
    if holder is not None:
        return AgentBusy(domain=domain, command=command, timeout_ms=LOCK_WAIT_MS, held_by=holder)
    if code in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_OPERATION_TIMEOUT):
        return AgentNotAnswering(domain=domain, command=command, timeout_ms=timeout_ms, message=message)
    if code == libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED and "not configured" in message:
        return NoAgentChannel(domain=domain)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainGone(uri="the host's libvirt", domain=domain)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return DomainPaused(domain=domain, state="not running")
    if code == libvirt.VIR_ERR_INTERNAL_ERROR and "QEMU agent command" in message:
        return _agent_answered(domain, command, agent_text(message))
    return LibvirtCallFailed(call=command, libvirt_code=code, message=message)


def _agent_answered(domain: str, command: str, text: str) -> StillpointError:
    # "has been disabled" (<= 9.0 and blocked), "the command is not allowed" (>= 9.1), "has not been found"
    # (unknown to this agent): §1.4. Frozen and blocked read alike from 9.1 on: guest-fsfreeze-status tells them apart.
    if f"ommand {command} has " in text:
        return AgentCommandBlocked(domain=domain, command=command, message=text)
    return AgentCommandFailed(domain=domain, command=command, message=text)


def agent_text(message: str) -> str:
    """The agent's own words: what follows libvirt's "unable to execute QEMU agent command 'x': "."""
    _, separator, text = message.partition("': ")
    return text if separator else message


def lock_holder(error: Any) -> str | None:
    """Who kept libvirt from beginning a call, in its own words (`agent=remoteDispatch…`); None: that was not the reason."""
    message = _clean(error.get_error_message())
    if error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT or "state change lock" not in message:
        return None
    found = _HELD_BY.search(message)
    return found[1] if found else "libvirt does not say whom"


def is_connection_lost(error: Any) -> bool:
    """libvirtd went away under the call: the connection object is dead and a new one is needed."""
    code, origin = error.get_error_code(), error.get_error_domain()
    if code in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN):
        return True
    return origin in _CONNECTION_LOST and code in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC)


def _clean(message: str | None) -> str:
    return (message or "no message").strip()


def _name(handle: DomainHandle) -> str:
    # name() is kept by the client library: it is no call to libvirtd and cannot fail.
    return handle.name()
