"""Real `libvirt.libvirtError`s, shaped as libvirt raises them: 9.0 and 11.3, each in its dialect."""

from typing import Any

import libvirt as _libvirt

from tests.fakes.dialect import SPOKEN, Dialect

libvirt: Any = _libvirt

# Newer than the constants of the libvirt-python that Debian 12's headers give.
AGENT_COMMAND_TIMEOUT = 112
AGENT_COMMAND_FAILED = 113


def libvirt_error(code: int, message: str, domain: int = libvirt.VIR_FROM_QEMU) -> Exception:
    """`domain`: VIR_FROM_…, the part of libvirt that speaks."""
    error = libvirt.libvirtError(message)
    # What libvirt-python keeps: code, domain, message, level, str1, str2, str3, int1, int2.
    error.err = (code, domain, message, 2, "%s", message, None, -1, -1)
    assert isinstance(error, Exception)
    return error


def agent_error(command: str, text: str, dialect: Dialect | None = None) -> Exception:
    """The agent answered with an error; libvirt drops its class."""
    said = f"unable to execute QEMU agent command '{command}': {text}"
    if (dialect or SPOKEN.dialect()) is Dialect.libvirt_11_3:
        return libvirt_error(AGENT_COMMAND_FAILED, f"guest agent command failed: {said}")
    return libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, f"internal error: {said}")


def agent_silent(dialect: Dialect | None = None) -> Exception:
    """No answer in time."""
    if (dialect or SPOKEN.dialect()) is Dialect.libvirt_11_3:
        return _agent_timed_out("guest agent didn't respond to command within '1' seconds")
    return _agent_unresponsive("Guest agent not available for now")


def agent_out_of_sync(dialect: Dialect | None = None) -> Exception:
    """No answer to the guest-sync that libvirt sends before a command: the command itself was not sent."""
    if (dialect or SPOKEN.dialect()) is Dialect.libvirt_11_3:
        return _agent_unresponsive("guest agent didn't respond to synchronization within '5' seconds")
    return _agent_unresponsive("Guest agent not available for now")


def agent_disappeared(dialect: Dialect | None = None) -> Exception:
    """The agent went away under the command."""
    text = "Guest agent disappeared while executing command"
    return _agent_timed_out(text) if (dialect or SPOKEN.dialect()) is Dialect.libvirt_11_3 else _agent_unresponsive(text)


def agent_not_connected() -> Exception:
    return _agent_unresponsive("QEMU guest agent is not connected")


def agent_refused() -> Exception:
    """libvirt takes the agent for broken, and sends it nothing until its port is opened anew."""
    return _agent_unresponsive("QEMU guest agent is not available due to an error")


def _agent_unresponsive(text: str) -> Exception:
    return libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, f"Guest agent is not responding: {text}")


def _agent_timed_out(text: str) -> Exception:
    return libvirt_error(AGENT_COMMAND_TIMEOUT, f"guest agent command timed out: {text}")


def agent_busy() -> Exception:
    return libvirt_error(
        libvirt.VIR_ERR_OPERATION_TIMEOUT, "Timed out during operation: cannot acquire state change lock (held by agent=remoteDispatch)"
    )


def no_channel() -> Exception:
    return libvirt_error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: QEMU guest agent is not configured")


def not_running(origin: int = libvirt.VIR_FROM_QEMU) -> Exception:
    return libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is not running", origin)


def no_domain(uuid: str) -> Exception:
    return libvirt_error(libvirt.VIR_ERR_NO_DOMAIN, f"Domain not found: no domain with matching uuid '{uuid}'")


def connection_lost() -> Exception:
    """libvirtd died under the call."""
    return libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, "End of file while reading data: Input/output error", libvirt.VIR_FROM_RPC)
