"""Real `libvirt.libvirtError`s, shaped as libvirt 9.0.0 raises them."""

from typing import Any

import libvirt as _libvirt

libvirt: Any = _libvirt


def libvirt_error(code: int, message: str, domain: int = libvirt.VIR_FROM_QEMU) -> Exception:
    """`domain`: VIR_FROM_…, the part of libvirt that speaks."""
    error = libvirt.libvirtError(message)
    # What libvirt-python keeps: code, domain, message, level, str1, str2, str3, int1, int2.
    error.err = (code, domain, message, 2, "%s", message, None, -1, -1)
    assert isinstance(error, Exception)
    return error


def agent_error(command: str, text: str) -> Exception:
    """The agent answered with an error; libvirt drops its class."""
    return libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, f"internal error: unable to execute QEMU agent command '{command}': {text}")


def agent_silent(text: str = "Guest agent not available for now") -> Exception:
    """No answer in time, not connected, or gone under the command."""
    return libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, f"Guest agent is not responding: {text}")


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
