"""The VSS writers that earlier jobs and preflights saw in a guest. A writer that is not listed any more is missing.

When a service stops, its writer disappears from the list. The data of that service then takes no part in a freeze, and no list says so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from service.model.windows.drift import ABSENT, Change, Fact
from service.model.windows.vss_writers import WriterReport
from service.model.windows.well_known_writers import writer_class

MISSED_FOR = timedelta(days=30)
"""A writer that was not seen for this time is forgotten: its application was probably removed from the guest."""


@dataclass(frozen=True)
class KnownWriter:
    """`count`: how many of this class and name were listed at once. `since`, `seen`: first and last, RFC 3339."""

    name: str
    class_id: str
    count: int
    since: str
    seen: str

    @property
    def key(self) -> tuple[str, str]:
        return self.class_id, self.name


def known_from(documents: Sequence[Mapping[str, Any]]) -> tuple[KnownWriter, ...]:
    return tuple(KnownWriter(**document) for document in documents)


def as_documents(known: Sequence[KnownWriter]) -> list[dict[str, Any]]:
    return [asdict(each) for each in known]


def updated(known: Sequence[KnownWriter], report: WriterReport | None, now: str) -> tuple[KnownWriter, ...]:
    """The writers to remember after `report`. A writer whose service starts and stops by itself is never missing."""
    counts = _counts(report)
    by_key = {each.key: each for each in known if not _is_forgotten(each, now)}
    for key, count in counts.items():
        if writer_class(key[0]).comes_and_goes:
            continue
        earlier = by_key.get(key)
        if earlier is None or count >= earlier.count:
            by_key[key] = KnownWriter(key[1], key[0], count, earlier.since if earlier else now, now)
    return tuple(by_key.values())


def missing(known: Sequence[KnownWriter], *reports: WriterReport | None) -> tuple[KnownWriter, ...]:
    """The writers of which each of `reports` lists fewer than were known. Without a complete list, no writer counts as missing."""
    if not any(report is not None and report.problem is None for report in reports):
        return ()
    counts = [_counts(report) for report in reports]
    return tuple(each for each in known if all(count[each.key] < each.count for count in counts))


def changes(missed: Sequence[KnownWriter], now: str) -> Iterator[Change]:
    """Reported by every job, while other changes are reported once: as long as the writer is missing, its application is unprotected."""
    for writer in missed:
        yield Change(
            code="writer_missing",
            fact=Fact.writers,
            before=writer.name,
            after=ABSENT,
            before_since=writer.since,
            last_seen_before=writer.seen,
            since=now,
            detail=f"The VSS writer {writer.name} {{{writer.class_id}}} is not listed any more. It was last seen {writer.seen}.",
            remedy="Start the service of this writer in the guest. If the application was removed from the guest, do nothing: the writer "
            f"is forgotten {MISSED_FOR.days} days after it was last seen. STILLPOINT_WRITER_RULES can ignore its class before that.",
        )


def _counts(report: WriterReport | None) -> Counter[tuple[str, str]]:
    return Counter((writer.class_id, writer.name) for writer in report.writers) if report is not None else Counter()


def _is_forgotten(writer: KnownWriter, now: str) -> bool:
    return datetime.fromisoformat(now) - datetime.fromisoformat(writer.seen) > MISSED_FOR
