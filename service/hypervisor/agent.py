"""Sends one command to the guest agent, and translates its failure (F§3, F§4.1)."""

import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentLost,
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
from service.hypervisor.xml import agent_is_connected

PING_TIMEOUT_MS = 5_000
"""Milliseconds. After that the agent counts as not answering."""
QUERY_TIMEOUT_MS = 10_000
"""Milliseconds for a command without a limit of its own. After that the agent counts as not answering."""

LOCK_WAIT_MS = 30_000
"""Milliseconds that libvirt waits for the lock of another client's command (VIR_JOB_WAIT_TIME). After that the agent counts as busy."""

# libvirt 11.2 and later have error codes for the agent. libvirt-python may have been built with older headers, which lack them.
AGENT_COMMAND_TIMEOUT = 112
"""VIR_ERR_AGENT_COMMAND_TIMEOUT: the command was sent, and its answer was lost."""
AGENT_COMMAND_FAILED = 113
"""VIR_ERR_AGENT_COMMAND_FAILED: the agent answered with an error. Older versions say VIR_ERR_INTERNAL_ERROR."""

_SILENT = (AGENT_COMMAND_TIMEOUT, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
REFUSED_AT_ONCE_S = 0.2
"""Seconds. libvirt waits longer than this for a silent agent, so libvirt never sent a command that it refused sooner."""
ASK_AGAIN_S = 0.1
"""Seconds before the second question to an agent that may be lost."""
_CONNECTION_LOST = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)

# libvirtd's errors are in the language of its host. In every language, from 9.0 to 11.3, they contain the names that are matched here.
_HOLDER = re.compile(r"(monitor|agent)\w*=([^\s()（）]+)")
HOLDER_UNKNOWN = "libvirt does not say which call"
_QUEUE_IS_FULL = "max_queued"
_PRODUCT = "QEMU"


def call(handle: DomainHandle, command: str, arguments: dict[str, Any] | None = None, *, timeout_ms: int = QUERY_TIMEOUT_MS) -> Any:
    """Send one command and return its `return` value.

    Raises AgentNotAnswering (no answer in time, not connected), AgentLost, AgentBusy (not sent at all), LibvirtCallTimedOut,
    AgentCommandBlocked, AgentCommandFailed (the agent answered with an error), AgentAnswerUnreadable, NoAgentChannel,
    DomainPaused, DomainGone, LibvirtUnavailable.
    """
    request: dict[str, Any] = {"execute": command}
    if arguments is not None:
        request["arguments"] = arguments
    sent = time.monotonic()
    try:
        reply = handle.agent_command(json.dumps(request), max(1, math.ceil(timeout_ms / 1000)))
    except LibvirtError as error:
        translated = translate(handle, command, timeout_ms, error)
        if _is_refusal(error, sent) and _is_lost(handle):
            raise AgentLost(**translated.facts) from error
        raise translated from error
    except SystemError as error:
        # libvirt-python raises this for an error text that is not UTF-8. libvirt quotes the text of the guest.
        raise AgentAnswerUnreadable(domain=_name(handle), command=command, reason="the answer is not UTF-8") from error
    except LibvirtCallTimedOut as error:
        raise LibvirtCallTimedOut(**{**error.facts, "call": command}) from error
    with reading(_name(handle), command):
        return json.loads(reply)["return"]


def _is_lost(handle: DomainHandle) -> bool:
    """Whether libvirt refuses a second time although QEMU sees the agent's port open. A restarted agent answers the second time."""
    time.sleep(ASK_AGAIN_S)
    asked = time.monotonic()
    try:
        handle.agent_command(json.dumps({"execute": "guest-ping"}), 1)
    except LibvirtError as error:
        return _is_refusal(error, asked) and _is_connected(handle)
    except StillpointError:
        return False
    return False


def _is_refusal(error: Any, sent: float) -> bool:
    """Whether libvirt refused at once. Before 11.2 a lost answer has the same code, but comes late."""
    return error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE and time.monotonic() - sent < REFUSED_AT_ONCE_S


def _is_connected(handle: DomainHandle) -> bool:
    try:
        return bool(agent_is_connected(handle.xml()))
    except (LibvirtError, StillpointError):
        return False


@contextmanager
def reading(domain: str, command: str) -> Iterator[None]:
    """Use this around code that reads an answer, because a guest may answer in any form. Raises AgentAnswerUnreadable."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AgentAnswerUnreadable(domain=domain, command=command, reason=f"{type(error).__name__}: {error}") from error


def translate(handle: DomainHandle, command: str, timeout_ms: int, error: Any) -> StillpointError:
    """Translate libvirt's error of an agent command: by its code, and by its form if the code has several meanings.

    libvirt does not pass on the agent's own `class` (F§4.1).
    """
    code, message, domain = error.get_error_code(), _clean(error.get_error_message()), _name(handle)
    if is_connection_lost(error):
        return LibvirtUnavailable(uri="the host's libvirt", reason=message)
    holder = lock_holder(error)
    if holder is not None:
        return AgentBusy(domain=domain, command=command, timeout_ms=LOCK_WAIT_MS, held_by=holder)
    if code in _SILENT:
        return AgentNotAnswering(domain=domain, command=command, timeout_ms=timeout_ms, message=message)
    if code == libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED and _PRODUCT in message:
        return NoAgentChannel(domain=domain)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DomainGone(uri="the host's libvirt", domain=domain)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return DomainPaused(domain=domain, state="not running")
    return _agent_answered(domain, command, code, message) or LibvirtCallFailed(call=command, libvirt_code=code, message=message)


def _agent_answered(domain: str, command: str, code: int, message: str) -> StillpointError | None:
    """The agent's own error. None: the error does not come from the agent."""
    if code not in (AGENT_COMMAND_FAILED, libvirt.VIR_ERR_INTERNAL_ERROR):
        return None
    text = agent_text(command, message)
    if text is None and code != AGENT_COMMAND_FAILED:
        return None
    # "has been disabled" (<= 9.0 and blocked), "the command is not allowed" (>= 9.1), "has not been found"
    # (unknown to this agent): F§1.4. From 9.1 on, frozen and blocked have the same text: guest-fsfreeze-status tells them apart.
    # The agent speaks English in every guest.
    if f"ommand {command} has " in (text or ""):
        return AgentCommandBlocked(domain=domain, command=command, message=text)
    return AgentCommandFailed(domain=domain, command=command, message=message if text is None else text)


def agent_text(command: str, message: str) -> str | None:
    """The agent's own text in libvirt's "… QEMU agent command '{command}': {text}", in any language. None: the message has another form.

    A quotation mark and more words may stand between the command and the colon, but never another colon.
    """
    match = re.search(rf"(?<![\w-]){re.escape(command)}(?![\w-])[^:：]*[:：]\s*(.*)", message, re.DOTALL)
    return match[1] if match else None


def lock_holder(error: Any) -> str | None:
    """The call that holds the lock which this call did not get, as libvirt names it (`agent=remoteDispatch…`). None: another error."""
    code, message = error.get_error_code(), _clean(error.get_error_message())
    if code != libvirt.VIR_ERR_OPERATION_TIMEOUT and not (code == libvirt.VIR_ERR_OPERATION_FAILED and _QUEUE_IS_FULL in message):
        return None
    return " ".join(f"{lock}={holder}" for lock, holder in _HOLDER.findall(message)) or HOLDER_UNKNOWN


def is_connection_lost(error: Any) -> bool:
    """libvirtd went away during the call: the connection object is dead, and a new connection is needed."""
    code, origin = error.get_error_code(), error.get_error_domain()
    if code in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN):
        return True
    return origin in _CONNECTION_LOST and code in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC)


def _clean(message: str | None) -> str:
    return (message or "no message").strip()


def _name(handle: DomainHandle) -> str:
    # The client library keeps the name: this does not call libvirtd, and cannot fail.
    return handle.name()
