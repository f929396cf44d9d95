"""The result of a program that ran in a guest, as the agent reports it."""

import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ExecResult:
    exit_code: int | None
    signal: int | None
    output: bytes
    error_output: bytes
    #: The agent cut the output. Agents up to QEMU 8.2 send the key only when it happened, and with the value false (F§3).
    is_cut_off: bool = False


def result_of(status: dict[str, Any]) -> ExecResult:
    return ExecResult(
        exit_code=status.get("exitcode"),
        signal=status.get("signal"),
        output=base64.b64decode(status.get("out-data", "")),
        error_output=base64.b64decode(status.get("err-data", "")),
        is_cut_off=_is_cut_off(status),
    )


def _is_cut_off(status: dict[str, Any]) -> bool:
    """Whether the key is true. `false` is ambiguous, so every parser must notice a missing end itself."""
    return bool(status.get("out-truncated"))
