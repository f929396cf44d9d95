"""What a program that ran in a guest has left, as the agent tells it."""

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
    """True when it says so. A lone `false` is ambiguous: every parser must notice an end that is missing."""
    return bool(status.get("out-truncated"))
