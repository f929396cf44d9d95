"""Which policy has a domain: the one whose selector is the most specific. Two that are equally specific are a tie.

A selector with names, labels and hosts asks for all of them. What it is compared by is told by `Specificity`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from service.errors import PolicyTie, SelectorEmpty, SelectorNotAlone
from service.model.document_fields import Faults, Fields
from service.model.request_limits import LABEL_KEY, MAX_HOST_NAME, MAX_LABEL_VALUE, MAX_LABELS, MAX_NAME, PRINTABLE

MAX_SELECTED = 1_000
"""Names, and hosts, that a selector may list. A policy with more is refused: labels are meant for that."""
FIELDS = ("names", "labels", "hosts", "all_the_rest")
_SET = re.compile(r"\[!?\]?[^\]]*\]")
"""One character of several, in a pattern. Without its end the bracket stands for itself."""


class Domain(NamedTuple):
    """A domain as selectors see it."""

    id: str
    name: str
    host: str
    labels: Mapping[str, str]


class Specificity(NamedTuple):
    """Compared from left to right, and the larger one wins.

    `name`: 2 for an exact name, 1 for a pattern, 0 without names. `literals`: the characters of it that stand for themselves.
    """

    name: int = 0
    literals: int = 0
    labels: int = 0
    hosts: int = 0
    asks: int = 0


@dataclass(frozen=True)
class Selector:
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    all_the_rest: bool = False

    @classmethod
    def read(cls, fields: Fields) -> "Selector":
        selector = cls(
            names=fields.texts("names", "names or patterns such as db-*", pattern=PRINTABLE, longest=MAX_NAME, limit=MAX_SELECTED),
            labels=fields.labels("labels", LABEL_KEY, PRINTABLE, MAX_LABEL_VALUE, MAX_LABELS),
            hosts=fields.texts("hosts", "names of hosts", pattern=PRINTABLE, longest=MAX_HOST_NAME, limit=MAX_SELECTED),
            all_the_rest=fields.flag("all_the_rest", default=False),
        )
        asked = [name for name in ("names", "labels", "hosts") if fields.has(name)]
        if selector.all_the_rest and asked:
            fields.faults.add(SelectorNotAlone(path=fields.path, others=", ".join(asked)))
        if not selector.all_the_rest and not asked:
            fields.faults.add(SelectorEmpty(path=fields.path))
        return selector

    def as_document(self) -> dict[str, Any]:
        """Null: the selector does not ask for it."""
        return {
            "names": list(self.names) or None,
            "labels": dict(self.labels) or None,
            "hosts": list(self.hosts) or None,
            "all_the_rest": self.all_the_rest,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Selector":
        """For a policy on record, whose faults were told when it was written."""
        return cls.read(Fields(document, "selector", FIELDS, Faults()))

    def specificity(self, domain: Domain) -> Specificity | None:
        """None: the domain is not selected."""
        if self.all_the_rest:
            return Specificity()
        if self.hosts and domain.host not in self.hosts:
            return None
        if any(domain.labels.get(name) != value for name, value in self.labels.items()):
            return None
        by_name = self._by_name(domain.name)
        if by_name is None:
            return None
        return Specificity(*by_name[:2], labels=len(self.labels), hosts=int(bool(self.hosts)), asks=1)

    def pattern_for(self, name: str) -> str | None:
        """The most specific of the patterns that match. None: the selector has no names, or none of them matches."""
        by_name = self._by_name(name)
        return by_name.pattern if by_name is not None else None

    def _by_name(self, name: str) -> "_ByName | None":
        if not self.names:
            return _NO_NAMES
        if name in self._exact:
            return _ByName(2, len(name), name)
        return next((weight for weight, is_match in self._patterns if is_match(name)), None)

    # Thousands of domains are compared with each name: a set and compiled patterns keep that fast.
    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(name for name in self.names if not is_pattern(name))

    @cached_property
    def _patterns(self) -> "list[tuple[_ByName, Callable[[str], object]]]":
        """The most specific first. Case counts. `*`, `?` and `[...]` as in a shell."""
        patterns = [(_ByName(1, _literals(name), name), re.compile(translate(name)).match) for name in self.names if is_pattern(name)]
        return sorted(patterns, key=lambda pattern: pattern[0].literals, reverse=True)


class _ByName(NamedTuple):
    kind: int
    literals: int
    pattern: str | None


_NO_NAMES = _ByName(0, 0, None)


class Named(NamedTuple):
    """A selector without the rest of its policy."""

    name: str
    selector: Selector


class HasSelector(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def selector(self) -> Selector: ...


@dataclass(frozen=True)
class Selected:
    policy: str
    specificity: Specificity


@dataclass(frozen=True)
class Tie:
    """`policies`: the names, sorted. None of them protects the domain until a person has decided."""

    policies: tuple[str, ...]
    specificity: Specificity


def policy_of(domain: Domain, policies: Iterable[HasSelector]) -> Selected | Tie | None:
    """None: nobody has asked to protect the domain. A paused policy has its domains, too."""
    best: Specificity | None = None
    names: list[str] = []
    for policy in policies:
        specificity = policy.selector.specificity(domain)
        if specificity is None or (best is not None and specificity < best):
            continue
        names = [*names, policy.name] if specificity == best else [policy.name]
        best = specificity
    if best is None:
        return None
    return Selected(names[0], best) if len(names) == 1 else Tie(tuple(sorted(names)), best)


def ties(domains: Iterable[Domain], policies: Sequence[HasSelector]) -> list[tuple[Domain, Tie]]:
    """In the order of the domains."""
    selected = ((domain, policy_of(domain, policies)) for domain in domains)
    return [(domain, tie) for domain, tie in selected if isinstance(tie, Tie)]


def error_of(ties: Iterable[tuple[Domain, Tie]]) -> PolicyTie:
    return PolicyTie([{"id": domain.id, "name": domain.name, "policies": list(tie.policies)} for domain, tie in ties])


def is_pattern(text: str) -> bool:
    return "*" in text or "?" in text or _SET.search(text) is not None


def _literals(pattern: str) -> int:
    return len(re.sub(r"[*?]", "", _SET.sub("", pattern)))
