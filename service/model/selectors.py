"""Which policy has a domain: the one whose selector is the most specific. Two that are equally specific are a tie.

A selector with names, labels and hosts asks for all of them. What it is compared by is told by `Specificity`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from service.errors import PolicyTie, SelectorEmpty, SelectorNotAlone
from service.model.document_fields import Fields
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
        return Specificity(*by_name, labels=len(self.labels), hosts=int(bool(self.hosts)), asks=1)

    def _by_name(self, name: str) -> tuple[int, int] | None:
        """By the most specific of the patterns."""
        if not self.names:
            return 0, 0
        return max((_weight(pattern) for pattern in self.names if matches(pattern, name)), default=None)


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

    def error(self, domain: Domain) -> PolicyTie:
        return PolicyTie(domain=domain.name, domain_id=domain.id, policies=", ".join(self.policies))


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


def is_pattern(text: str) -> bool:
    return "*" in text or "?" in text or _SET.search(text) is not None


def matches(pattern: str, name: str) -> bool:
    """Case counts. `*`, `?` and `[...]` as in a shell."""
    return fnmatchcase(name, pattern)


def _weight(pattern: str) -> tuple[int, int]:
    if not is_pattern(pattern):
        return 2, len(pattern)
    literals = re.sub(r"[*?]", "", _SET.sub("", pattern))
    return 1, len(literals)
