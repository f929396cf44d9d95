"""The lists of writers from before the freeze and from after the thaw, compared instance by instance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.model.windows.vss_writers import Writer, WriterReport
from service.model.windows.well_known_writers import writer_class


class ChangeKind(StrEnum):
    unchanged = "unchanged"
    newly_failed = "newly_failed"
    """Failed after the thaw, and not in the very same way before the freeze."""
    pre_existing = "pre_existing"
    """The same failure, in the same words, as before the freeze."""
    recovered = "recovered"
    appeared = "appeared"
    vanished = "vanished"
    restarted = "restarted"
    """Healthy, but a new instance: the failures of the old instance are not known any more."""
    not_settled = "not_settled"
    not_understood = "not_understood"


@dataclass(frozen=True)
class WriterChange:
    """One writer; `before` or `after` None: it was not listed then."""

    kind: ChangeKind
    before: Writer | None
    after: Writer | None
    note: str | None = None

    @property
    def _listed(self) -> Writer:
        listed = self.after or self.before
        if listed is None:
            raise ValueError("a change needs a writer before or after")
        return listed

    @property
    def name(self) -> str:
        return self._listed.name

    @property
    def class_id(self) -> str:
        return self._listed.class_id

    @property
    def instance_id(self) -> str:
        return self._listed.instance_id


@dataclass(frozen=True)
class WriterComparison:
    before: WriterReport | None
    after: WriterReport | None
    changes: tuple[WriterChange, ...]
    #: Both lists had to infer what "no error" means, and they do not agree.
    language_doubt: bool = False

    def of(self, kind: ChangeKind) -> tuple[WriterChange, ...]:
        return tuple(change for change in self.changes if change.kind is kind)


INSTANCE_CHANGED = "The instance id of this writer changed, because its service restarted between the two lists."


def compare(before: WriterReport | None, after: WriterReport | None) -> WriterComparison:
    """None: the list could not be had. Without a list after the thaw there is nothing to say about any writer."""
    if after is None:
        return WriterComparison(before, after, ())
    had_list = before is not None and before.problem is None
    pairs = _pairs(before.writers if before else (), after.writers)
    # A list that is not complete says nothing about who is missing in it.
    listed = [pair for pair in pairs if pair[1] is not None or after.problem is None]
    changes = tuple(_change(earlier, later, had_list) for earlier, later in listed)
    return WriterComparison(before, after, changes, _language_doubt(before, after))


def _language_doubt(before: WriterReport | None, after: WriterReport) -> bool:
    return before is not None and after.no_error_is_inferred and before.no_error_text not in (None, after.no_error_text)


def _change(before: Writer | None, after: Writer | None, had_list: bool) -> WriterChange:
    if after is None or before is None:
        kind = ChangeKind.vanished if after is None else _kind_of_unpaired(after, had_list)
        return WriterChange(kind, before, after)
    changed_instance = before.instance_id != after.instance_id
    return WriterChange(_kind(before, after, changed_instance), before, after, INSTANCE_CHANGED if changed_instance else None)


def _kind(before: Writer, after: Writer, changed_instance: bool) -> ChangeKind:
    if after.failed:
        same = (before.failed, before.state, before.last_error) == (True, after.state, after.last_error)
        return ChangeKind.pre_existing if same and not changed_instance else ChangeKind.newly_failed
    doubt = _doubt(after)
    if doubt is not None:
        return doubt
    if changed_instance and not writer_class(after.class_id).restarts_by_itself:
        return ChangeKind.restarted
    return ChangeKind.recovered if before.failed else ChangeKind.unchanged


def _kind_of_unpaired(after: Writer, had_list: bool) -> ChangeKind:
    if after.failed:
        return ChangeKind.newly_failed
    return _doubt(after) or (ChangeKind.appeared if had_list else ChangeKind.unchanged)


def _doubt(after: Writer) -> ChangeKind | None:
    if after.is_transitional:
        return ChangeKind.not_settled
    return None if after.is_healthy else ChangeKind.not_understood


def _pairs(before: Sequence[Writer], after: Sequence[Writer]) -> Iterator[tuple[Writer | None, Writer | None]]:
    """Pairs writers by class and instance. The others are paired by class and name, if both lists have only one such writer."""
    earlier = list(before)
    unpaired = []
    for later in after:
        same = next((writer for writer in earlier if _instance(writer) == _instance(later)), None)
        if same is None:
            unpaired.append(later)
        else:
            earlier.remove(same)
            yield same, later
    for later in unpaired:
        namesakes = [writer for writer in earlier if _named(writer) == _named(later)]
        is_alone = sum(_named(writer) == _named(later) for writer in unpaired) == 1
        if len(namesakes) == 1 and is_alone:
            earlier.remove(namesakes[0])
            yield namesakes[0], later
        else:
            yield None, later
    yield from ((writer, None) for writer in earlier)


def _instance(writer: Writer) -> tuple[str, str]:
    return writer.class_id, writer.instance_id


def _named(writer: Writer) -> tuple[str, str]:
    return writer.class_id, writer.name
