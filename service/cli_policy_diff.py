"""What the files of policies change, in their canonical form: every field, in one order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any


@dataclass(frozen=True)
class Step:
    """`wanted` None: the policy is removed. `on_record` None: it is new, and `revision` is 0."""

    name: str
    wanted: dict[str, Any] | None
    on_record: dict[str, Any] | None
    revision: int = 0

    @property
    def is_change(self) -> bool:
        return self.wanted != self.on_record


def steps_of(wanted: Sequence[dict[str, Any]], on_record: Sequence[Mapping[str, Any]], *, prune: bool) -> list[Step]:
    """`on_record`: policies as the API answers them. `prune`: those that are not wanted are removed.

    A document whose `paused` is None leaves that as it is.
    """
    there = {policy["name"]: policy for policy in on_record}
    steps = [_step(document, there.pop(document["name"], None)) for document in wanted]
    return steps + [Step(name, None, policy["document"], policy["revision"]) for name, policy in there.items() if prune]


def _step(wanted: Mapping[str, Any], policy: Mapping[str, Any] | None) -> Step:
    before = policy["document"] if policy is not None else None
    paused = wanted["paused"] if wanted["paused"] is not None else before is not None and before["paused"]
    return Step(wanted["name"], {**wanted, "paused": paused}, before, policy["revision"] if policy is not None else 0)


def diff_of(step: Step) -> Iterator[str]:
    """Without line ends. Nothing: it does not change."""
    before, after = (as_yaml(each).splitlines() if each is not None else [] for each in (step.on_record, step.wanted))
    old = f"{step.name} (revision {step.revision})" if before else "/dev/null"
    return unified_diff(before, after, old, step.name if after else "/dev/null", lineterm="")


def as_yaml(document: Mapping[str, Any]) -> str:
    # Imported here, as most commands show no YAML.
    import yaml

    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=1_000))
