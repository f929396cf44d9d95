"""Preflight: whether a job would work, which verdict to expect, and how to remove each obstacle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import GuestAlreadyFrozen, NoAgentChannel, NothingToFreeze, StillpointError, WindowsCommandBlocked
from service.model import checks_images
from service.model.check import Check, CheckStatus, failed, passed, warned
from service.model.disk_coverage import left_out_with_data, uncovered_disks, unheld_filesystems
from service.model.foreign_freeze import ForeignFreeze
from service.model.host_trial import HostTrial
from service.model.inventory import Disk, DomainState, OsFamily, Space, Survey
from service.model.policy import FreezeMode
from service.model.scope import DiskSelection, FreezeScope
from service.model.verdict import HookState, Verdict
from service.model.windows import checks as checks_windows
from service.model.windows import vss_usable
from service.model.windows.checks import WindowsCircumstances

YOUNG_GUEST_S = 60.0
"""Seconds. In a guest with a shorter uptime, services that take part in a freeze may not be up yet: preflight warns."""


@dataclass(frozen=True)
class Circumstances:
    """The request of the job, and the facts of the survey."""

    survey: Survey
    selection: DiskSelection | None
    selection_fault: StillpointError | None
    scope: FreezeScope | None
    spaces: Sequence[Space]
    freeze_mode: FreezeMode
    max_chain_depth: int
    #: What was read of VSS; None: the guest is not Windows, or its agent does not answer.
    windows: WindowsCircumstances | None = None
    #: Why the files of the disks are not at rest; None: no other program was seen to write to them.
    image_fault: StillpointError | None = None
    #: Names of the snapshots that libvirt has on record.
    libvirt_snapshots: Sequence[str] = ()
    #: What was tried on the host; None: no disk can take part, so nothing was tried.
    host: HostTrial | None = None
    #: Why the guest cannot be held for as long as the job asks; None: the guest can.
    hold_fault: StillpointError | None = None


@dataclass(frozen=True)
class PreflightResult:
    would_work: bool
    expected_verdict: Verdict
    checks: list[Check]

    def as_document(self) -> dict[str, Any]:
        return {
            "would_work": self.would_work,
            "expected_verdict": self.expected_verdict.value,
            "checks": [check.as_document() for check in self.checks],
        }


def evaluate(facts: Circumstances) -> PreflightResult:
    """Every check, in the order of a job."""
    checks = [
        *_domain(facts),
        *_disks(facts),
        *(facts.host.checks() if facts.host is not None else ()),
        *_agent(facts),
        *_guest(facts),
    ]
    if facts.windows is not None:
        checks += checks_windows.checks(facts.windows)
    blocking = any(check.status is CheckStatus.fail for check in checks)
    return PreflightResult(not blocking, Verdict.none if blocking else _expected(facts), checks)


def why_not_freezable(survey: Survey, scope: FreezeScope | None = None) -> StillpointError | None:
    """The first fact that makes a freeze impossible; None: a freeze can be tried."""
    agent, domain = survey.agent, survey.domain
    if not agent.channel:
        return NoAgentChannel(domain=domain)
    if agent.fault is not None:
        return agent.fault
    if agent.freeze_fault is not None:
        return vss_usable.why_agent_fails(domain, agent.freeze_fault)
    if agent.frozen:
        return _already_frozen(domain, survey.foreign_freeze)
    not_offered = vss_usable.why_not_offered(survey)
    if not_offered is not None:
        return not_offered
    if scope is not None and scope.nothing_to_freeze:
        return NothingToFreeze(domain=domain, why=scope.why)
    return None


def _already_frozen(domain: str, freeze: ForeignFreeze | None) -> GuestAlreadyFrozen:
    if freeze is None:
        return GuestAlreadyFrozen(domain=domain)
    return GuestAlreadyFrozen(domain=domain, frozen_by=freeze.by, frozen_since=freeze.since)


_EXEC_BLOCKED = (
    "The agent does not allow guest-exec. The guest cannot be flushed before the freeze, and its hooks, uptime and mounts cannot be read.",
    "Allow guest-exec in the guest: block-rpcs/allow-rpcs in qemu-ga.conf, or BLOCK_RPCS/FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga. "
    "Then restart the agent.",
)
_EXEC_BLOCKED_IN_WINDOWS = (
    "The agent does not allow guest-exec, so the VSS writers, the backup type and the events of SQL Server cannot be read.",
    WindowsCommandBlocked.remedy_template,
)


def _expected(facts: Circumstances) -> Verdict:
    if facts.survey.state is DomainState.shut_off:
        return Verdict.offline
    if facts.freeze_mode is FreezeMode.off or why_not_freezable(facts.survey, facts.scope) is not None:
        return Verdict.crash
    if facts.windows is not None:
        expected = checks_windows.expected_verdict(facts.windows)
        return Verdict.filesystem if facts.selection and _costs_application(facts.survey, facts.selection) else expected
    taken = facts.selection.taken if facts.selection else []
    if uncovered_disks(facts.survey, taken) or unheld_filesystems(facts.survey, taken):
        return Verdict.crash
    is_whole = facts.selection is None or not _costs_application(facts.survey, facts.selection)
    return Verdict.application if facts.survey.hook is HookState.truthful and is_whole else Verdict.filesystem


def _costs_application(survey: Survey, selection: DiskSelection) -> bool:
    left_out = left_out_with_data(survey, selection.left_out, by_name=selection.is_by_name)
    return any(disk.costs_application for disk in left_out)


def _domain(facts: Circumstances) -> Iterator[Check]:
    state, name = facts.survey.state, facts.survey.domain
    if facts.hold_fault is not None:
        yield failed("hold_limits", facts.hold_fault.detail, facts.hold_fault.remedy)
    if state is DomainState.paused and facts.freeze_mode is not FreezeMode.off:
        remedy = f"Resume the domain (`virsh resume {name}`), or set freeze.mode to off."
        yield failed("domain_state", "The domain is paused, so its agent cannot answer.", remedy)
    elif state is DomainState.other:
        yield failed("domain_state", "The state of the domain does not allow a snapshot.", "Wait until the domain runs or is shut off.")
    else:
        yield passed("domain_state", f"The domain is {state.value.replace('_', ' ')}.")
    busy = facts.survey.busy
    if busy:
        what = "; ".join(f"{target or 'domain'}: {job}" for target, job in busy.items())
        remedy = f"Wait until the job ends: `virsh domjobinfo {name}`, `virsh blockjob {name} DISK`."
        yield failed("libvirt_job", f"Another job of libvirt runs: {what}.", remedy)
    else:
        yield passed("libvirt_job", "No job or block job of libvirt runs on the domain.")


def _disks(facts: Circumstances) -> Iterator[Check]:
    if facts.selection is None:
        fault = facts.selection_fault
        yield failed("disks", fault.detail if fault else "No disk can take part.", fault.remedy if fault else "")
        return
    yield passed("disks", f"In the snapshot: {', '.join(disk.target for disk in facts.selection.taken)}.")
    for target, reason in facts.selection.left_out.items():
        yield warned(
            "disk_left_out", f"{target} is not in the snapshot: {reason}.", "If the disk holds data, back the disk up by other means."
        )
    yield from checks_images.checks(facts.survey.domain, facts.selection.taken, facts.image_fault, facts.libvirt_snapshots)
    for disk in facts.selection.taken:
        yield from _chain(disk, facts.max_chain_depth)
    for space in facts.spaces:
        if space.is_enough:
            yield passed("space", f"{space.path} has {_mib(space.free_bytes)} MiB free for overlays.")
        else:
            yield failed(
                "space",
                f"{space.path} has {_mib(space.free_bytes)} MiB free; {_mib(space.needed_bytes)} MiB are needed.",
                "Free space in this folder, or set STILLPOINT_OVERLAY_DIR to another folder.",
            )


def _chain(disk: Disk, limit: int) -> Iterator[Check]:
    depth = disk.files_below
    there = f"{disk.target} has {depth} file(s) below the active file, and {limit} is the limit (STILLPOINT_MAX_CHAIN_DEPTH)."
    if depth >= limit:
        yield failed("chain_depth", f"{there} A snapshot is refused. A backup is not, as it merges its overlay back.", _MERGE)
    elif depth >= limit - max(1, limit // 4):
        yield warned("chain_depth", f"{there} A read may go through all of them.", _MERGE)
    else:
        yield passed("chain_depth", f"{disk.target} has {depth} file(s) below the active file.")


_MERGE = "Remove old points: `stillpoint remove --merge POINT...`. Their files are merged while the guest runs."


def _agent(facts: Circumstances) -> Iterator[Check]:
    survey = facts.survey
    if survey.state is not DomainState.running:
        return
    if facts.freeze_mode is FreezeMode.off:
        yield warned(
            "freeze", "The job turns the freeze off: the point will be crash-consistent at best.", "Leave freeze.mode at its default."
        )
        return
    fault = why_not_freezable(survey, facts.scope)
    if fault is None:
        yield passed("freeze", f"The agent {survey.agent.version or 'of unknown version'} answers, is thawed, and may freeze the guest.")
    elif facts.freeze_mode is FreezeMode.required:
        yield failed(fault.code, fault.detail, fault.remedy)
    else:
        yield warned(fault.code, f"{fault.detail} The point will be crash-consistent.", fault.remedy)
    if survey.agent.answers and not survey.agent.allows("guest-exec"):
        yield warned("agent_exec_blocked", *(_EXEC_BLOCKED_IN_WINDOWS if survey.is_windows else _EXEC_BLOCKED))


def _guest(facts: Circumstances) -> Iterator[Check]:
    if facts.survey.state is not DomainState.running or not facts.survey.agent.answers:
        return
    yield from _coverage(facts)
    yield from _linux(facts)
    yield from _hook(facts)


def _coverage(facts: Circumstances) -> Iterator[Check]:
    filesystems, selection = facts.survey.filesystems, facts.selection
    if filesystems is None and facts.windows is not None:
        # The checks of Windows report this, because the cause is another one there.
        return
    if filesystems is None or selection is None:
        yield warned(
            "coverage",
            "The agent did not list the filesystems, so it is not known what the point covers.",
            "Update qemu-guest-agent (2.2 or newer).",
        )
        return
    taken = {disk.target for disk in selection.taken}
    outside = [fs.mountpoint for fs in filesystems if fs.disks and not taken.issuperset(fs.disks)]
    uncovered = uncovered_disks(facts.survey, selection.taken) if facts.windows is None else ()
    unheld = unheld_filesystems(facts.survey, selection.taken) if facts.windows is None else ()
    if outside:
        yield warned(
            "filesystem_not_covered",
            f"Filesystems on disks that are not in the snapshot: {', '.join(outside)}.",
            "Add the disks of these filesystems to the job.",
        )
    # If the freeze is required, a job without a good freeze fails.
    outcome = failed if facts.freeze_mode is FreezeMode.required else warned
    for disk in uncovered:
        yield outcome("disk_not_covered", f"{disk.target}: {disk.why}. The point will be crash-consistent.", _UNCOVERED)
    if unheld:
        names = ", ".join(unheld)
        detail = f"Filesystems that are mounted for writing and cannot be frozen: {names}. The point will be crash-consistent."
        yield outcome("filesystems_not_held", detail, "Keep data on ext4, xfs or btrfs, or unmount these filesystems for the backup.")
    if facts.scope is not None and facts.scope.unfreezable:
        names = ", ".join(facts.scope.unfreezable)
        yield warned(
            "filesystem_not_freezable",
            f"Filesystems of a type that cannot be frozen: {names}.",
            "This is fine for boot partitions. Keep data on other filesystems.",
        )
    if not outside and not uncovered:
        yield passed("coverage", "The filesystems of the guest and the disks of the job cover each other.")


_UNCOVERED = (
    "Put the data of this disk on a filesystem that is mounted in the guest where the agent runs. Or name the other disks in the job, "
    "or set freeze.mode to preferred."
)


def _linux(facts: Circumstances) -> Iterator[Check]:
    linux = facts.survey.linux
    if linux is None:
        return
    if linux.loop_mounts:
        yield warned(
            "loop_mounts",
            f"Loop-mounted filesystems: {', '.join(linux.loop_mounts)}. On some kernels a freeze of the filesystem below can deadlock.",
            "Unmount these filesystems for the backup, or move them to disks of their own.",
        )
    else:
        yield passed("loop_mounts", "The guest has no loop-mounted filesystem.")
    if linux.network_mounts:
        yield warned(
            "network_mounts",
            f"Network filesystems, which are not on a disk of this domain: {', '.join(linux.network_mounts)}.",
            "Back up network filesystems on their server.",
        )
    if linux.uptime_s is not None and linux.uptime_s < YOUNG_GUEST_S:
        yield warned(
            "guest_booted_recently",
            f"The guest has been up for {linux.uptime_s:.0f} s. Its services may not be ready.",
            "Wait a minute after a boot.",
        )
    elif linux.uptime_s is not None:
        yield passed("guest_booted_recently", f"The guest has been up for {linux.uptime_s:.0f} s.")


def _hook(facts: Circumstances) -> Iterator[Check]:
    if facts.survey.agent.os_family is not OsFamily.linux:
        return
    where = (facts.survey.linux.hook_path if facts.survey.linux else None) or "the hook"
    match facts.survey.hook:
        case HookState.truthful:
            yield passed("fsfreeze_hook", f"{where} declares that it reports failures. The verdict `application` is possible.")
        case HookState.absent:
            detail = "The guest has no fsfreeze hook: its applications take no part in the freeze, and `filesystem` is the best verdict."
            yield passed("fsfreeze_hook", detail)
        case HookState.swallowing:
            yield warned(
                "fsfreeze_hook",
                f"{where} exits with 0 also when its scripts fail, so its exit status proves nothing.",
                "Install contrib/fsfreeze-hook in the guest.",
            )
        case HookState.unknown:
            detail = f"It is not known whether {where} reports failures."
            yield warned("fsfreeze_hook", detail, "Install contrib/fsfreeze-hook in the guest.")
        case HookState.not_inspected:
            yield warned(
                "fsfreeze_hook", "The service could not read whether the guest has an fsfreeze hook.", "Allow guest-exec in the agent."
            )


def _mib(size: int) -> int:
    return size // (1024 * 1024)
