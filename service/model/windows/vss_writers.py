"""`vssadmin list writers`, read by shape, numbers and GUIDs, never by label (F§5.3).

A writer is five lines: a quoted name, {class}, {instance}, [state], last error. What does not have that shape
is kept as text and reported as a problem; nothing is ever called healthy because it could not be read.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from service.model.windows import oem_text
from service.model.windows.writer_texts import KNOWN_TEXTS, WriterError, error_in, normalised, says_no_error

STATE_NAMES = (
    "unknown", "stable", "waiting_for_freeze", "waiting_for_thaw", "waiting_for_post_snapshot", "waiting_for_backup_complete",
    "failed_at_identify", "failed_at_prepare_backup", "failed_at_prepare_snapshot", "failed_at_freeze", "failed_at_thaw",
    "failed_at_post_snapshot", "failed_at_backup_complete", "failed_at_pre_restore", "failed_at_post_restore",
    "failed_at_backup_shutdown",
)  # fmt: skip
"""VSS_WRITER_STATE (F§5.2): the number in the brackets is the index."""

STABLE = 1
TRANSITIONAL = range(2, 6)
FAILED = range(6, len(STATE_NAMES))

MAX_BYTES = 262_144
"""Bytes of vssadmin's output that are read. Longer output counts as cut off. A guest with sixty writers prints 20 KB."""

MIN_WRITERS_OF_A_TEXT = 3
"""Writers of different classes that must share a last-error text of an unknown language before the text counts as "no error"."""


class WritersProblem(StrEnum):
    """Why a report does not prove health."""

    cut_off = "cut_off"
    unparsable = "unparsable"
    no_writers = "no_writers"


@dataclass(frozen=True)
class Writer:
    """One instance of a writer. `failed` None: its last-error text is not understood."""

    name: str
    class_id: str
    instance_id: str
    state: int
    last_error: str
    failed: bool | None

    @property
    def state_name(self) -> str:
        return STATE_NAMES[self.state] if self.state < len(STATE_NAMES) else "unrecognised"

    @property
    def is_transitional(self) -> bool:
        return self.state in TRANSITIONAL

    @property
    def is_healthy(self) -> bool:
        return self.state == STABLE and self.failed is False

    @property
    def error(self) -> WriterError | None:
        return error_in(self.last_error)

    def as_document(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "state_name": self.state_name,
            "last_error": self.last_error,
            "error": self.error,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class WriterReport:
    """`problem` None: every writer that vssadmin listed is in `writers`. `raw` is what it printed, to the byte (256 KiB at most)."""

    writers: tuple[Writer, ...]
    raw: bytes
    raw_text: str
    encoding: str
    problem: WritersProblem | None
    #: The last-error text that means "no error" in this output; None: not known.
    no_error_text: str | None = None
    #: The text is not in the table. It was inferred, because most of the stable writers have this text.
    no_error_is_inferred: bool = False

    @property
    def is_healthy(self) -> bool:
        return self.problem is None and all(writer.is_healthy for writer in self.writers)

    def as_document(self) -> dict[str, Any]:
        return {
            "raw_text": self.raw_text,
            "raw_base64": base64.b64encode(self.raw).decode("ascii"),
            "encoding": self.encoding,
            "problem": self.problem,
            "no_error_text": self.no_error_text,
            "no_error_is_inferred": self.no_error_is_inferred,
        }


def parse(output: bytes, *, truncated: bool = False, encoding_hint: str | None = None) -> WriterReport:
    """Never raises. `truncated`: the caller knows that the output is incomplete."""
    truncated = truncated or len(output) > MAX_BYTES
    output = output[:MAX_BYTES]
    decoded = oem_text.decode(output, expected=KNOWN_TEXTS, hint=encoding_hint)
    blocks = list(_blocks(decoded.text))
    problem = _problem(decoded.text, blocks, truncated)
    if problem is WritersProblem.cut_off:
        blocks = _without_doubtful_end(blocks, decoded.text)
    writers = [block.writer for block in blocks]
    no_error, inferred = _no_error_text(writers)
    judged = tuple(replace(writer, failed=_failed(writer, no_error)) for writer in writers)
    return WriterReport(judged, output, decoded.text, decoded.encoding, problem, no_error, inferred)


def settled(report: WriterReport) -> bool:
    """Whether no writer is between two states, so that another list would say the same. An unreadable report counts as settled."""
    return not any(writer.is_transitional for writer in report.writers)


# --- the shape ------------------------------------------------------------------------------------

_LINE_END = re.compile(r"\r*\n|\r")
_GUID = re.compile(r"\{([0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12})\}")
_STATE = re.compile(r"\[\s*([0-9]{1,4})\s*\]")
_COLON = re.compile(r"[:：]")
_QUOTES = "'\"‘’‚‛“”„‟«»‹›「」『』＇＂`´"


@dataclass(frozen=True)
class _Block:
    writer: Writer
    #: Index of its last-error line.
    end: int


def _blocks(text: str) -> Iterator[_Block]:
    """A block is found by two GUIDs in consecutive lines, so that an unreadable name or an unknown preamble does not matter."""
    lines = _LINE_END.split(text)
    filled = [index for index, line in enumerate(lines) if line.strip()]
    at = 0
    while at + 4 < len(filled):
        name, first, second, state, error = (lines[filled[at + step]] for step in range(5))
        ids = _GUID.findall(first), _GUID.findall(second)
        number = _STATE.search(state)
        together = filled[at + 4] - filled[at + 1] == 3
        if [len(matches) for matches in ids] == [1, 1] and not _GUID.search(name) and number is not None and together:
            writer = Writer(_name(name), ids[0][0].lower(), ids[1][0].lower(), int(number[1]), _after_colon(error), None)
            yield _Block(writer, filled[at + 4])
            at += 5
        else:
            at += 1


def _name(line: str) -> str:
    value = _after_colon(line)
    is_quoted = len(value) > 2 and value[0] in _QUOTES and value[-1] in _QUOTES
    return value[1:-1].strip() if is_quoted else value


def _after_colon(line: str) -> str:
    """After the label's colon. The last one is meant (F§5.3); the first is taken, because only a value can hold
    another, and a cut value could be mistaken for "no error"."""
    return _COLON.split(line, maxsplit=1)[-1].strip()


def _problem(text: str, blocks: Sequence[_Block], truncated: bool) -> WritersProblem | None:
    lines = _LINE_END.split(text)
    if truncated:
        return WritersProblem.cut_off
    if not blocks:
        return _why_none(text)
    after = [line for line in lines[blocks[-1].end + 1 :] if line.strip()]
    if not text.endswith("\n") or after:
        return WritersProblem.cut_off
    # A GUID outside every writer is a writer in a shape that is not known.
    return WritersProblem.unparsable if len(_GUID.findall(text)) != 2 * len(blocks) else None


def _why_none(text: str) -> WritersProblem:
    """The banner names the program in every language. A banner without a GUID or a state below means: no writer."""
    if _GUID.search(text) or _STATE.search(text):
        return WritersProblem.unparsable if text.endswith("\n") else WritersProblem.cut_off
    return WritersProblem.no_writers if not text.strip() or "vssadmin" in text.casefold() else WritersProblem.unparsable


def _without_doubtful_end(blocks: list[_Block], text: str) -> list[_Block]:
    """A last line without a line end may be cut off, so its writer is left out."""
    last = len(_LINE_END.split(text.removesuffix("\r"))) - 1
    return [block for block in blocks if block.end != last]


# --- what the last error means --------------------------------------------------------------------


def _failed(writer: Writer, no_error: str | None) -> bool | None:
    if writer.state in FAILED:
        return True
    text = normalised(writer.last_error)
    if error_in(writer.last_error) is not None:
        return True
    if writer.state not in (STABLE, *TRANSITIONAL) or not text:
        return None
    if no_error is None:
        return None
    # One output has one language: whatever differs from its "no error" is an error.
    return text != no_error and not says_no_error(text)


def _no_error_text(writers: Sequence[Writer]) -> tuple[str | None, bool]:
    """The text, and whether the text was inferred from the stable writers."""
    known = [normalised(writer.last_error) for writer in writers if says_no_error(writer.last_error)]
    if known:
        return known[0], False
    stable = {(writer.class_id, normalised(writer.last_error)) for writer in writers if writer.state == STABLE}
    texts = Counter(text for _, text in stable)
    for text, classes in texts.most_common(1):
        if text and classes >= MIN_WRITERS_OF_A_TEXT and classes * 2 > len(stable) and error_in(text) is None:
            return text, True
    return None, False
