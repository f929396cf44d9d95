"""SQL Server's own events about a freeze: 3197 (I/O is frozen on a database) and 3198 (I/O was resumed).

By id and number, never by text, so in every language; tied to one job because only records that are newer than
the one remembered before its freeze count.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model import oem_text

IO_FROZEN = 3197
IO_RESUMED = 3198


class SqlProblem(StrEnum):
    """Why the events prove nothing."""

    not_remembered = "not_remembered"
    """The newest record before the freeze is not known, so nothing ties an event to this job."""
    unreadable = "unreadable"
    no_events = "no_events"
    unbalanced = "unbalanced"
    """A database was frozen and not resumed, or the other way round."""


@dataclass(frozen=True)
class SqlEvent:
    """`source`: the SQL Server instance, as the event's provider; two instances may have a database of the same name."""

    record_id: int
    event_id: int
    source: str
    database: str
    at: str | None = None


@dataclass(frozen=True)
class SqlEvidence:
    events: tuple[SqlEvent, ...]
    problem: SqlProblem | None
    unbalanced: tuple[str, ...] = ()

    @property
    def is_proof(self) -> bool:
        return self.problem is None

    @property
    def databases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(event.database for event in self.events))

    @property
    def detail(self) -> str:
        match self.problem:
            case None:
                names = ", ".join(self.databases)
                return f"SQL Server's events 3197 and 3198 of this job show that I/O was frozen and resumed on: {names}."
            case SqlProblem.not_remembered:
                return "SQL Server's events cannot be tied to this job: the newest record before the freeze is not known."
            case SqlProblem.unreadable:
                return "SQL Server's events could not be read completely."
            case SqlProblem.no_events:
                return "SQL Server reported no freeze of a database (events 3197 and 3198) since this job began."
            case SqlProblem.unbalanced:
                return f"SQL Server's events 3197 and 3198 do not pair up for: {', '.join(self.unbalanced)}."

    def as_document(self) -> dict[str, Any]:
        return {
            "is_proof": self.is_proof,
            "problem": self.problem,
            "databases": list(self.databases),
            "events": [vars(event) for event in self.events],
            "detail": self.detail,
        }


def newest_record_id(output: bytes) -> int | None:
    """The highest EventRecordID in wevtutil's XML; None: there is none to read."""
    ids = [record for element in _elements(_text(output)) if (record := _record_id(element)) is not None]
    return max(ids, default=None)


def gather(output: bytes, *, after_record_id: int | None, truncated: bool = False) -> SqlEvidence:
    """`output`: `wevtutil qe /f:xml`. Proof needs both events of every database, the freeze before the resumption."""
    if after_record_id is None:
        return SqlEvidence((), SqlProblem.not_remembered)
    text = _text(output)
    elements = list(_elements(text))
    events = tuple(
        sorted(
            (event for element in elements if (event := _sql_event(element)) is not None and event.record_id > after_record_id),
            key=lambda event: event.record_id,
        )
    )
    if truncated or _is_broken(text, elements):
        return SqlEvidence(events, SqlProblem.unreadable)
    if not events:
        return SqlEvidence((), SqlProblem.no_events)
    unbalanced = tuple(_unbalanced(events))
    return SqlEvidence(events, SqlProblem.unbalanced if unbalanced else None, unbalanced)


def _unbalanced(events: tuple[SqlEvent, ...]) -> Iterator[str]:
    """In the order of their records a freeze and a resumption must alternate, for each database of each instance."""
    sequences: dict[tuple[str, str], list[int]] = {}
    for event in events:
        sequences.setdefault((event.source, event.database), []).append(event.event_id)
    for (source, database), sequence in sequences.items():
        if sequence != [IO_FROZEN, IO_RESUMED] * (len(sequence) // 2) or not database:
            yield f"{source}/{database or '(no name)'}"


# --- wevtutil's XML -------------------------------------------------------------------------------

_BEGIN = re.compile(r"<(?:[\w.-]+:)?Event(?=[\s>])")
_END = re.compile(r"</(?:[\w.-]+:)?Event\s*>")


def _text(output: bytes) -> str:
    return oem_text.decode(output).text


def _elements(text: str) -> Iterator[ET.Element]:
    """wevtutil prints one root after the other, so each is read on its own. No document type: nothing in it may expand."""
    at = 0
    for end in _END.finditer(text):
        begin = _BEGIN.search(text, at, end.start())
        at = end.end()
        if begin is None or "<!DOCTYPE" in text[begin.start() : at]:
            continue
        try:
            yield ET.fromstring(text[begin.start() : at])
        except ET.ParseError:
            continue


def _is_broken(text: str, elements: list[ET.Element]) -> bool:
    """More events began than could be read, or there is text and no event in it."""
    began = sum(1 for _ in _BEGIN.finditer(text))
    rest = text[text.rfind(">") + 1 :].strip()
    return began != len(elements) or bool(rest) or (bool(text.strip()) and not elements)


def _sql_event(element: ET.Element) -> SqlEvent | None:
    record_id, event_id = _record_id(element), _number(_first(element, "EventID"))
    if record_id is None or event_id not in (IO_FROZEN, IO_RESUMED):
        return None
    provider, created = _first(element, "Provider"), _first(element, "TimeCreated")
    return SqlEvent(
        record_id=record_id,
        event_id=event_id,
        source=provider.get("Name", "") if provider is not None else "",
        database=_database(element),
        at=created.get("SystemTime") if created is not None else None,
    )


def _database(element: ET.Element) -> str:
    """The first insertion string of both events is the database's name."""
    data = next((each for each in _all(element, "Data")), None)
    return (data.text or "").strip() if data is not None else ""


def _record_id(element: ET.Element) -> int | None:
    return _number(_first(element, "EventRecordID"))


def _number(element: ET.Element | None) -> int | None:
    text = (element.text or "").strip() if element is not None else ""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _first(element: ET.Element, name: str) -> ET.Element | None:
    return next(_all(element, name), None)


def _all(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """By local name: the namespace differs between versions and tools."""
    return (each for each in element.iter() if each.tag.rpartition("}")[2] == name)
