"""Reads the output of `wevtutil qe … /f:xml`: one root after the other, in the OEM code page of the guest. Texts are never read."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from service.model.windows import oem_text


@dataclass(frozen=True)
class WrittenEvent:
    """`data`: its insertion strings."""

    record_id: int
    event_id: int | None
    source: str
    at: str | None
    data: tuple[str, ...]


@dataclass(frozen=True)
class EventPage:
    """One reading. `is_sound`: every complete event was read. `is_whole`: nothing came after the last complete event."""

    events: tuple[WrittenEvent, ...]
    is_sound: bool
    is_whole: bool

    @property
    def newest(self) -> int | None:
        return max((event.record_id for event in self.events), default=None)


def read(output: bytes) -> EventPage:
    """Never raises. An event without a number counts as not readable."""
    text = oem_text.decode(output).text
    elements = list(_elements(text))
    events = tuple(event for element in elements if (event := _event(element)) is not None)
    ends = [end.end() for end in _END.finditer(text)]
    end = ends[-1] if ends else 0
    is_sound = len(ends) == len(events) == sum(1 for _ in _BEGIN.finditer(text, 0, end))
    rest = _ROOT_END.sub("", text[end:])
    return EventPage(events, is_sound, is_sound and not rest.strip())


_BEGIN = re.compile(r"<(?:[\w.-]+:)?Event(?=[\s>])")
_ROOT_END = re.compile(r"^\s*</Events>")
_END = re.compile(r"</(?:[\w.-]+:)?Event\s*>")


def _elements(text: str) -> Iterator[ET.Element]:
    """Each root is read alone. A root with a document type is skipped, so that no entity can expand."""
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


def _event(element: ET.Element) -> WrittenEvent | None:
    record_id = _number(_first(element, "EventRecordID"))
    if record_id is None:
        return None
    provider, created = _first(element, "Provider"), _first(element, "TimeCreated")
    return WrittenEvent(
        record_id=record_id,
        event_id=_number(_first(element, "EventID")),
        source=provider.get("Name", "") if provider is not None else "",
        at=created.get("SystemTime") if created is not None else None,
        data=tuple((each.text or "").strip() for each in _all(element, "Data")),
    )


def _number(element: ET.Element | None) -> int | None:
    text = (element.text or "").strip() if element is not None else ""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _first(element: ET.Element, name: str) -> ET.Element | None:
    return next(_all(element, name), None)


def _all(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """All elements below with this local name. The namespace differs between versions and tools."""
    return (each for each in element.iter() if each.tag.rpartition("}")[2] == name)
