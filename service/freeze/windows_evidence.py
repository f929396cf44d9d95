"""Evidence around the window of a Windows guest: the writers before and after, the backup type, SQL Server's events.

The writers are listed while the guest is thawed, and not by the requester, so their states are indirect evidence (F§5.3). If something
cannot be read, the reason is recorded and lowers the verdict. Nothing is guessed.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from service.freeze import sql_server, windows_programs
from service.hypervisor.guest import Guest
from service.model.inventory import Survey
from service.model.windows import auto_recovery, event_xml, known_writers, volume_coverage, vss_writers, writer_changes, writer_rules
from service.model.windows.agent_generation import AgentGeneration, generation_of
from service.model.windows.auto_recovery import VssOption, VssOptionState
from service.model.windows.known_writers import KnownWriter
from service.model.windows.sql_evidence import SqlEvidence
from service.model.windows.volume_coverage import DriveType
from service.model.windows.vss_writers import WriterReport
from service.model.windows.well_known_writers import APPLICATION_FREEZE_LIMIT_MS, SQL_SERVER, shortest_freeze_limit_ms
from service.model.windows.writer_changes import WriterComparison
from service.model.windows.writer_rules import WriterRules, WritersJudgement

SETTLE_BUDGET_S = 60.0
"""Seconds that writers may need after the thaw until their states are final. After that their last states count."""
SETTLE_PAUSE_S = 1.0
"""Seconds between two reads of the writers."""
EXEC_BLOCKED = "the agent does not allow guest-exec"


@dataclass(frozen=True)
class WriterList:
    """`report` None: the list could not be read, for the reason in `unavailable`."""

    report: WriterReport | None
    unavailable: str | None = None


@dataclass
class VssEvidence:
    """The evidence of VSS. It is filled before the freeze and after the thaw."""

    generation: AgentGeneration
    nt: tuple[int, int] | None
    option: VssOption = field(default_factory=lambda: VssOption(VssOptionState.unreadable))
    before: WriterList = field(default_factory=lambda: WriterList(None, "it was not read"))
    after: WriterList = field(default_factory=lambda: WriterList(None, "it was not read"))
    #: The writers that earlier jobs saw, and the writers that this job saw before the freeze.
    known_writers: tuple[KnownWriter, ...] = ()
    #: By volume name: its drive type in Windows. None: the types could not be read.
    drive_types: dict[str, DriveType] | None = None
    newest_record: int | None = None
    sql: SqlEvidence | None = None

    @property
    def comparison(self) -> WriterComparison:
        return writer_changes.compare(self.before.report, self.after.report)

    def judge_writers(self, rules: WriterRules) -> WritersJudgement:
        return writer_rules.judge(
            self.comparison,
            unavailable=self.after.unavailable,
            unavailable_before=self.before.unavailable,
            missing=known_writers.missing(self.known_writers, self.before.report, self.after.report),
            sql=self.sql,
            rules=rules,
        )

    @property
    def class_ids(self) -> frozenset[str]:
        reports = (self.before.report, self.after.report)
        return frozenset(writer.class_id for report in reports if report is not None for writer in report.writers)

    @property
    def writer_limit_ms(self) -> float:
        """How long the applications of this guest can stay frozen: 60 s, or less for some writers."""
        return shortest_freeze_limit_ms(self.class_ids) if self.class_ids else APPLICATION_FREEZE_LIMIT_MS


def read_before(guest: Guest, survey: Survey) -> VssEvidence:
    """Read the evidence while the guest still runs. Never raises if the guest gives no answer."""
    evidence = VssEvidence(generation_of(survey.agent.version), auto_recovery.kernel_version(survey.agent.os))
    if not survey.agent.allows("guest-exec"):
        evidence.before = evidence.after = WriterList(None, EXEC_BLOCKED)
        return evidence
    evidence.before = _list_writers(guest)
    option = windows_programs.query_vss_option(guest)
    evidence.option = auto_recovery.read_vss_option(option.output, exit_code=option.exit_code, truncated=option.cut_off)
    if SQL_SERVER in evidence.class_ids:
        newest = windows_programs.newest_application_event(guest)
        evidence.newest_record = event_xml.read(newest.output).newest if newest.problem is None else None
    volumes = windows_programs.list_volume_kinds(guest)
    if volumes.problem is None and not volumes.cut_off:
        evidence.drive_types = volume_coverage.read_drive_types(volumes.output)
    return evidence


def read_after(guest: Guest, survey: Survey, evidence: VssEvidence, budget_s: float = SETTLE_BUDGET_S) -> None:
    """Read the writers after the thaw, again while a writer is between two states, which is normal for a while (F§5.3)."""
    if not survey.agent.allows("guest-exec"):
        return
    deadline = time.monotonic() + budget_s
    while True:
        evidence.after = _list_writers(guest)
        report = evidence.after.report
        if report is None or vss_writers.settled(report) or time.monotonic() + SETTLE_PAUSE_S > deadline:
            break
        time.sleep(SETTLE_PAUSE_S)
    if SQL_SERVER in evidence.class_ids:
        evidence.sql = sql_server.read_events(guest, evidence.newest_record)


def _list_writers(guest: Guest) -> WriterList:
    listed = windows_programs.list_writers(guest)
    if listed.exit_code is None:
        return WriterList(None, listed.problem)
    # Parse the output also after a bad exit code: vssadmin prints its error, which the parser keeps, and does not take for a list.
    return WriterList(vss_writers.parse(listed.output, truncated=listed.cut_off))


def raw_document(evidence: VssEvidence) -> dict[str, Any]:
    """The output of the guest's programs, which is stored together with the results."""
    return {
        "agent": evidence.generation.as_document(),
        "vss_option": {"state": evidence.option.state.value, "value": evidence.option.value},
        "drive_types": evidence.drive_types,
        "writers_before": evidence.before.report.as_document() if evidence.before.report else None,
        "writers_after": evidence.after.report.as_document() if evidence.after.report else None,
        "writers_before_unavailable": evidence.before.unavailable,
        "writers_after_unavailable": evidence.after.unavailable,
        "newest_event_record_before": evidence.newest_record,
        "sql_server": evidence.sql.as_document() if evidence.sql else None,
    }
