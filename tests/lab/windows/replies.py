"""What the agent answers, and when."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

ErrorClass = Literal["GenericError", "CommandNotFound"]


@dataclass(frozen=True)
class AgentError:
    error_class: ErrorClass
    desc: str


@dataclass(frozen=True)
class Outcome:
    """`seconds` is how long the agent was busy with it, silent to everything else."""

    seconds: float
    value: Any = None
    error: AgentError | None = None

    def document(self) -> dict[str, Any]:
        if self.error is None:
            return {"return": self.value}
        return {"error": {"class": self.error.error_class, "desc": self.error.desc}}


@dataclass(frozen=True)
class Reply:
    """One line, `after_s` guest seconds after the request was handed in."""

    after_s: float
    line: bytes


def on_the_wire(document: dict[str, Any]) -> bytes:
    """One line as QEMU writes it: ASCII, with escapes in capital letters."""
    text = json.dumps(document)
    return re.sub(r"\\u([0-9a-f]{4})", lambda escape: "\\u" + escape[1].upper(), text).encode() + b"\n"
