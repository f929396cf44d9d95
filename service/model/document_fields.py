"""Reads the fields of a document that a person wrote, and keeps every fault instead of stopping at the first.

Where a field has a fault, its default or a stand-in is returned, so that the rest can be read. The caller raises what was kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from service.errors import FieldMissing, FieldRefused, FieldRepeated, FieldUnknown, PolicyFault, TextExpected

MAX_VALUE_SHOWN = 120
"""Characters of a value that a fault shows. The rest is cut off."""

Choice = TypeVar("Choice", bound=StrEnum)


def shown(value: Any) -> str:
    """A value as a fault shows it: `"text"`, `5`, `null`, `an object`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            text = f'"{value}"'
        case Mapping():
            return "an object" if value else "an empty object"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            text = str(value)
    return text if len(text) <= MAX_VALUE_SHOWN else f"{text[:MAX_VALUE_SHOWN]}..."


def nearest(name: str, known: Sequence[str]) -> str | None:
    lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


class Faults:
    def __init__(self) -> None:
        self.all: list[PolicyFault] = []

    def add(self, fault: PolicyFault) -> None:
        self.all.append(fault)

    def refuse(self, path: str, value: Any, allowed: str) -> None:
        self.add(FieldRefused(path=path, value=shown(value), allowed=allowed))


class Fields:
    """The fields of one object. `path`: where it stands in the document; "" for the document itself."""

    def __init__(self, document: Any, path: str, known: Sequence[str], faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self._known = known
        self._document: Mapping[Any, Any] = {}
        if isinstance(document, Mapping):
            self._document = document
        else:
            faults.refuse(path or "the policy", document, f"an object with the fields {', '.join(known)}")
        self.is_object = isinstance(document, Mapping)
        for name in self._document:
            if name not in known:
                self._refuse_name(name)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self._document.get(name) is not None

    def value(self, name: str) -> Any:
        return self._document.get(name)

    def text(self, name: str, allowed: str, *, pattern: str = "", longest: int = 255, shortest: int = 1, default: str | None = None) -> str:
        """`default` None: the field must be there. Empty: the text was refused."""
        if not self._is_there(name, allowed, is_needed=default is None):
            return default or ""
        return self._text(self.at(name), self._document[name], allowed, pattern, longest, shortest=shortest) or ""

    def whole(self, name: str, lowest: int, highest: int, default: int) -> int:
        value = self.whole_or_null(name, lowest, highest)
        return default if value is None else value

    def whole_or_null(self, name: str, lowest: int, highest: int, *, is_needed: bool = False) -> int | None:
        allowed = f"a whole number from {lowest} to {highest}"
        if not self._is_there(name, allowed, is_needed=is_needed):
            return None
        value = self._document[name]
        # 1000.0 is an integer in JSON.
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(whole, bool) or not isinstance(whole, int) or not lowest <= whole <= highest:
            self.faults.refuse(self.at(name), value, allowed)
            return None
        return whole

    def flag(self, name: str, default: bool) -> bool:
        value = self._document.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.faults.refuse(self.at(name), value, "true or false")
            return default
        return value

    def choice(self, name: str, choices: type[Choice], default: Choice, *, only: Sequence[str] = ()) -> Choice:
        return self.choice_or_null(name, choices, only=only) or default

    def choice_or_null(self, name: str, choices: type[Choice], *, only: Sequence[str] = (), is_needed: bool = False) -> Choice | None:
        """`only`: the values of the enumeration that are allowed here. Empty: all."""
        values = tuple(only) or tuple(each.value for each in choices)
        allowed = " or ".join(values)
        if not self._is_there(name, allowed, is_needed=is_needed):
            return None
        value = self._text(self.at(name), self._document[name], allowed, "", 255)
        if value is None:
            return None
        if value not in values:
            self.faults.refuse(self.at(name), value, allowed)
            return None
        return choices(value)

    def texts(self, name: str, allowed: str, *, pattern: str, longest: int, limit: int) -> tuple[str, ...]:
        """A list of different texts. Empty: the field is not there, as an empty list is refused."""
        values = self.items(name, f"a list of {allowed}", limit)
        texts: list[str] = []
        for n, value in enumerate(values):
            path = f"{self.at(name)}[{n}]"
            text = self._text(path, value, allowed, pattern, longest)
            if text in texts:
                self.faults.add(FieldRepeated(path=path, value=shown(text)))
            elif text is not None:
                texts.append(text)
        return tuple(texts)

    def items(self, name: str, allowed: str, limit: int, *, least: int = 1, is_needed: bool = False) -> Sequence[Any]:
        if not self._is_there(name, allowed, is_needed=is_needed):
            return ()
        value = self._document[name]
        if not isinstance(value, list | tuple) or not least <= len(value) <= limit:
            self.faults.refuse(self.at(name), value, f"{allowed}, from {least} to {limit} of them")
            return ()
        return value

    def labels(self, name: str, key_pattern: str, value_pattern: str, longest: int, limit: int) -> dict[str, str]:
        """Names with their values. Empty: the field is not there, as an empty object is refused."""
        value = self._document.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not 1 <= len(value) <= limit:
            self.faults.refuse(self.at(name), value, f"an object with 1 to {limit} labels")
            return {}
        return dict(self._labels(self.at(name), value, key_pattern, value_pattern, longest))

    def object(self, name: str, known: Sequence[str], *, is_needed: bool = False) -> "Fields | None":
        """None: the field is not there, or is null, or is not an object."""
        if not self._is_there(name, f"an object with the fields {', '.join(known)}", is_needed=is_needed):
            return None
        fields = Fields(self._document[name], self.at(name), known, self.faults)
        return fields if fields.is_object else None

    def objects(self, name: str, known: Sequence[str], limit: int, *, least: int = 0, is_needed: bool = False) -> Iterator["Fields"]:
        items = self.items(name, f"a list of objects with the fields {', '.join(known)}", limit, least=least, is_needed=is_needed)
        for n, item in enumerate(items):
            fields = Fields(item, f"{self.at(name)}[{n}]", known, self.faults)
            if fields.is_object:
                yield fields

    def _labels(
        self, path: str, labels: Mapping[Any, Any], key_pattern: str, value_pattern: str, longest: int
    ) -> Iterator[tuple[str, str]]:
        for key, value in labels.items():
            name = self._text(path, key, "labels whose names are letters, digits and . _ / -", key_pattern, 255)
            text = self._text(f"{path}.{key}", value, f"a text of {longest} characters at most", value_pattern, longest, shortest=0)
            if name is not None and text is not None:
                yield name, text

    def _is_there(self, name: str, allowed: str, *, is_needed: bool) -> bool:
        if self._document.get(name) is not None:
            return True
        if is_needed and self.is_object:
            self.faults.add(FieldMissing(path=self.at(name), allowed=allowed))
        return False

    def _text(self, path: str, value: Any, allowed: str, pattern: str, longest: int, *, shortest: int = 1) -> str | None:
        if not isinstance(value, str):
            kind = FieldRefused if isinstance(value, Mapping | list | tuple) or value is None else TextExpected
            self.faults.add(kind(path=path, value=shown(value), allowed=allowed))
            return None
        # `$` would let a line end through.
        if not shortest <= len(value) <= longest or (pattern and not re.fullmatch(pattern, value)) or not can_be_stored(value):
            self.faults.refuse(path, value, allowed)
            return None
        return value

    def _refuse_name(self, name: Any) -> None:
        near = nearest(str(name), self._known)
        self.faults.add(FieldUnknown(path=self.at(str(name)), known=", ".join(self._known), nearest=near))


def can_be_stored(text: str) -> bool:
    """PostgreSQL takes neither NUL nor half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
