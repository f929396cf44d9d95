"""What a writer's state before and after a freeze says about the point in time: rules as data, one per writer class.

Writer states are indirect evidence: another program gathers them, outside the freeze (F§5.3). So a state can lower
the verdict, and `application` needs a list that is complete, settled and healthy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model.windows.known_writers import KnownWriter
from service.model.windows.sql_evidence import SqlEvidence
from service.model.windows.vss_writers import Writer, WriterReport
from service.model.windows.well_known_writers import Aftermath, WriterClass, WriterEffect, writer_class
from service.model.windows.writer_changes import ChangeKind, WriterChange, WriterComparison


class WriterCeiling(StrEnum):
    """The best verdict that the writers allow; the values are those of the verdict."""

    filesystem = "filesystem"
    application_unverified = "application_unverified"
    application = "application"


_LOWEST_FIRST = tuple(WriterCeiling)


@dataclass(frozen=True)
class Finding:
    """One fact about the writers. `effect`: lifts, lowers or notes, as in the verdict's reasons."""

    code: str
    effect: str
    detail: str
    ceiling: WriterCeiling = WriterCeiling.application
    class_id: str | None = None


@dataclass(frozen=True)
class WritersJudgement:
    ceiling: WriterCeiling
    findings: tuple[Finding, ...]

    @property
    def lowering(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.effect == "lowers")


@dataclass(frozen=True)
class WriterRules:
    """`overrides`: class id to effect, from the settings. An override replaces the rule in the table."""

    overrides: Mapping[str, WriterEffect]

    @classmethod
    def from_settings(cls, overrides: Mapping[str, str]) -> "WriterRules":
        """Class ids in any case, with or without braces. Raises ValueError for an unknown effect."""
        return cls({class_id.strip("{} ").lower(): WriterEffect(effect) for class_id, effect in overrides.items()})

    def effect_of(self, class_id: str) -> WriterEffect:
        return self.overrides.get(class_id) or writer_class(class_id).on_new_failure

    def source_of(self, class_id: str) -> str:
        return FROM_SETTING if class_id in self.overrides else writer_class(class_id).reason


FROM_SETTING = "the setting for this writer class"
DEFAULT_RULES = WriterRules({})


def judge(
    comparison: WriterComparison,
    *,
    unavailable: str | None = None,
    unavailable_before: str | None = None,
    missing: Sequence[KnownWriter] = (),
    sql: SqlEvidence | None = None,
    rules: WriterRules = DEFAULT_RULES,
) -> WritersJudgement:
    """`unavailable`, `unavailable_before`: why a list could not be read. `missing`: known from earlier jobs, and in neither list.

    The most pessimistic finding decides.
    """
    findings = [*_after(comparison, unavailable), *_before(comparison, unavailable_before)]
    for change in comparison.changes:
        findings += _of(change, sql, rules)
    for writer in missing:
        findings += _missing(writer, rules)
    ceiling = min((finding.ceiling for finding in findings), key=_LOWEST_FIRST.index, default=WriterCeiling.application)
    if ceiling is WriterCeiling.application:
        findings.insert(0, _healthy(comparison.after))
    return WritersJudgement(ceiling, tuple(findings))


# --- what could be read ---------------------------------------------------------------------------


def _after(comparison: WriterComparison, unavailable: str | None) -> Iterator[Finding]:
    after = comparison.after
    if after is None:
        why = (unavailable or "it was not asked for").rstrip(".")
        yield _unverified("writers_unavailable", f"The state of the writers after the thaw is not known: {why}.")
    elif after.problem is not None:
        yield _unverified("writers_unavailable", f"The list of writers after the thaw is not reliable: {_problem(after)}.")
    elif not after.writers:
        yield _unverified("writers_unavailable", "vssadmin listed no writer after the thaw.")
    elif after.no_error_is_inferred:
        text = after.no_error_text
        what = f"The language of this guest is not known. The service infers that “{text}” means “no error”, because most writers say it."
        yield _unverified("writer_state_not_understood", what)


def _before(comparison: WriterComparison, unavailable: str | None) -> Iterator[Finding]:
    before = comparison.before
    if before is None or before.problem is not None:
        why = (unavailable or "it was not read").rstrip(".") if before is None else _problem(before)
        yield _note("writers_not_comparable", f"The list of writers from before the freeze is missing, so nothing was compared: {why}.")
    if comparison.language_doubt:
        yield _unverified("writer_state_not_understood", "The text that the service takes for “no error” differs between the two lists.")


def _problem(report: WriterReport) -> str:
    return {
        "cut_off": "vssadmin's output is cut off",
        "unparsable": "vssadmin's output has a shape that is not known",
        "no_writers": "vssadmin listed no writer",
    }[str(report.problem)]


def _healthy(after: WriterReport | None) -> Finding:
    writers = after.writers if after is not None else ()
    unwell = [writer.name for writer in writers if not writer.is_healthy]
    if unwell:
        well, names = len(writers) - len(unwell), ", ".join(unwell)
        detail = f"After the thaw {well} of {len(writers)} writers are healthy. The other reasons say why these do not count: {names}."
        return Finding("other_writers_healthy", "lifts", detail)
    return Finding("writers_healthy", "lifts", f"After the thaw all {len(writers)} writers are stable and without an error.")


# --- what each writer's change means --------------------------------------------------------------


def _of(change: WriterChange, sql: SqlEvidence | None, rules: WriterRules) -> Iterator[Finding]:
    effect = rules.effect_of(change.class_id)
    if effect is WriterEffect.ignored:
        if change.kind is not ChangeKind.unchanged:
            yield _note("writer_ignored", f"{_label(change)}: {_states(change)}. Ignored by {rules.source_of(change.class_id)}.", change)
        return
    finding = _finding(change, sql, rules)
    if finding is not None:
        yield finding if effect is WriterEffect.lowers else _weakened(finding, rules.source_of(change.class_id))
    elif change.note:
        yield _note("writer_instance_changed", f"{_label(change)}: {change.note}", change)


_DOUBTS = {
    ChangeKind.pre_existing: (
        "writer_failure_pre_existing",
        "shows the same failure before and after the freeze, so nothing shows that the writer took part in the freeze",
    ),
    ChangeKind.not_settled: ("writers_not_settled", "is still between two states"),
    ChangeKind.not_understood: ("writer_state_not_understood", "has a state that this version does not understand"),
    ChangeKind.restarted: ("writer_restarted", "restarted, so its state says nothing about the freeze"),
}


def _finding(change: WriterChange, sql: SqlEvidence | None, rules: WriterRules) -> Finding | None:
    match change.kind:
        case ChangeKind.unchanged:
            return None
        case ChangeKind.newly_failed:
            return _new_failure(change, sql, rules)
        case ChangeKind.vanished:
            return _on_one_list(change, "writer_vanished", "was listed before the freeze and is not listed after the thaw.")
        case ChangeKind.appeared:
            return _on_one_list(change, "writer_appeared", "is listed only after the thaw, so it may not have taken part in the freeze.")
    if change.kind in _DOUBTS:
        code, what = _DOUBTS[change.kind]
        return _unverified(code, f"{_label(change)} {what}: {_states(change)}.", change)
    recovered = f"{_label(change)} had failed before the freeze and is healthy after the thaw: {_states(change)}."
    return _note("writer_recovered", recovered, change)


def _on_one_list(change: WriterChange, code: str, what: str) -> Finding:
    if writer_class(change.class_id).restarts_by_itself:
        return _note(code, f"{_label(change)} {what} Its service starts and stops by itself.", change)
    return _unverified(code, f"{_label(change)} {what}", change)


def _missing(writer: KnownWriter, rules: WriterRules) -> Iterator[Finding]:
    label = _named(writer.name, writer_class(writer.class_id))
    what = f"{label} was listed for earlier jobs, last at {writer.seen}, and is listed neither before the freeze nor after the thaw."
    effect = rules.effect_of(writer.class_id)
    finding = Finding("writer_missing", "lowers", what, WriterCeiling.application_unverified, writer.class_id)
    yield finding if effect is WriterEffect.lowers else _weakened(finding, rules.source_of(writer.class_id))


def _new_failure(change: WriterChange, sql: SqlEvidence | None, rules: WriterRules) -> Finding:
    what = f"{_label(change)} failed, and had not failed like this before the freeze: {_states(change)}."
    known = writer_class(change.class_id)
    aftermath = known.aftermath_of(change.after) if change.after else None
    if aftermath is not None and sql is not None and sql.is_proof:
        return _note("writer_failure_outweighed", f"{what} {aftermath.reason} {sql.detail}", change)
    why = rules.source_of(change.class_id) if aftermath is None else f"{aftermath.reason} {_no_proof(sql, aftermath)}"
    return Finding("writer_newly_failed", "lowers", f"{what} {why}", WriterCeiling.filesystem, change.class_id)


def _no_proof(sql: SqlEvidence | None, aftermath: Aftermath) -> str:
    return f"{aftermath.without_proof} {sql.detail if sql is not None else 'Its events were not read.'}"


def _weakened(finding: Finding, source: str) -> Finding:
    if finding.effect != "lowers":
        return finding
    return Finding(finding.code, "notes", f"{finding.detail} It does not lower the verdict: {source}", class_id=finding.class_id)


def _label(change: WriterChange) -> str:
    return _named(change.name, writer_class(change.class_id))


def _named(name: str, known: WriterClass) -> str:
    return f"{name} ({known.application})" if known.application else name


def _states(change: WriterChange) -> str:
    return f"before {_state(change.before)}, after {_state(change.after)}"


def _state(writer: Writer | None) -> str:
    return "not listed" if writer is None else f"[{writer.state}] {writer.state_name}, “{writer.last_error}”"


def _unverified(code: str, detail: str, change: WriterChange | None = None) -> Finding:
    return Finding(code, "lowers", detail, WriterCeiling.application_unverified, change.class_id if change else None)


def _note(code: str, detail: str, change: WriterChange | None = None) -> Finding:
    return Finding(code, "notes", detail, class_id=change.class_id if change else None)


def as_documents(comparison: WriterComparison) -> list[dict[str, Any]]:
    """The writers as they stand in the job: before, after, and what changed."""
    return [_writer_document(change) for change in comparison.changes]


def _writer_document(change: WriterChange) -> dict[str, Any]:
    return {
        "name": change.name,
        "class_id": change.class_id,
        "instance_id": change.instance_id,
        "application": writer_class(change.class_id).application,
        "before": change.before.as_document() if change.before else None,
        "after": change.after.as_document() if change.after else None,
        "change": change.kind.value,
        "newly_failed": change.kind is ChangeKind.newly_failed,
        "note": change.note,
    }
