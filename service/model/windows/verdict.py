"""The part of the verdict that only Windows needs: what VSS did and what its writers say (F§6.4, F§6.5)."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.model.reasons import Effect, Reason, lifts, lowers, notes
from service.model.windows.sql_evidence import SqlEvidence
from service.model.windows.vss_outcome import VssDoubt, VssOutcome, VssReading
from service.model.windows.writer_rules import WriterCeiling, WritersJudgement


@dataclass(frozen=True)
class WindowsEvidence:
    """`uncovered_volumes` None: which volumes lie on which disk is not known."""

    reading: VssReading
    writers: WritersJudgement
    uncovered_volumes: tuple[str, ...] | None = ()
    #: Disks of the job without any volume that was held.
    bare_disks: tuple[str, ...] = ()
    #: Volumes that may have been held, without a proof.
    unproven_volumes: tuple[str, ...] = ()
    #: SQL Server's own events; None: the guest has no SQL Server, or the events could not be read.
    sql: SqlEvidence | None = None


_CRASH = {
    VssOutcome.lost: "vss_lost",
    VssOutcome.hold_writes_timeout: "vss_hold_writes_timeout",
    VssOutcome.provider_error: "vss_provider_error",
    VssOutcome.failed: "vss_failed",
    VssOutcome.unknown: "vss_unknown",
    VssOutcome.not_frozen: "vss_not_frozen",
}


def thaw_reasons(windows: WindowsEvidence) -> Iterator[Reason]:
    """The thaw reply is the only proof of the hold (F§0.1): without it the point is crash-consistent."""
    code = _CRASH.get(windows.reading.outcome)
    if code is not None:
        yield lowers(code, windows.reading.detail)


def to_filesystem(windows: WindowsEvidence) -> Iterator[Reason]:
    """Reasons for a good hold in which the applications failed."""
    if windows.reading.outcome is VssOutcome.complete_failed:
        yield lowers("vss_complete_failed", windows.reading.detail)
    if windows.uncovered_volumes:
        names = "; ".join(windows.uncovered_volumes)
        yield lowers("volumes_not_frozen", f"On the disks of this job and not in the shadow copy set: {names}.")
    for target in windows.bare_disks:
        yield lowers("disk_not_covered", f"{target}: no volume on this disk is listed, so nothing on the disk was held.")
    yield from _writer_reasons(windows, WriterCeiling.filesystem)


def to_unverified(windows: WindowsEvidence) -> Iterator[Reason]:
    """Reasons for a good hold without a known failure, but with something that is not known."""
    if windows.reading.doubt is VssDoubt.aborted_and_ignored:
        yield lowers("vss_abort_may_be_hidden", windows.reading.detail)
    if windows.reading.doubt is VssDoubt.windows_version_unknown:
        yield lowers("windows_version_unknown", windows.reading.detail)
    if windows.uncovered_volumes is None:
        yield lowers("volumes_unknown", "The agent did not tell which volumes lie on the disks of this job.")
    for doubt in windows.unproven_volumes:
        yield lowers("volume_not_proven", f"{doubt[0].upper()}{doubt[1:]}.")
    yield from _writer_reasons(windows, WriterCeiling.application_unverified)


def writer_notes(windows: WindowsEvidence) -> Iterator[Reason]:
    if windows.sql is not None:
        yield (lifts if windows.sql.is_proof else notes)("sql_server_events", windows.sql.detail)
    for finding in windows.writers.findings:
        if finding.effect == Effect.lifts:
            yield Reason(finding.code, Effect.lifts, finding.detail)
        elif finding.effect == Effect.notes:
            yield notes(finding.code, finding.detail)


def _writer_reasons(windows: WindowsEvidence, ceiling: WriterCeiling) -> Iterator[Reason]:
    for finding in windows.writers.lowering:
        if finding.ceiling is ceiling:
            yield lowers(finding.code, finding.detail)
