"""Reads a domain and its guest before anything is frozen. `service.model.checks` and `scope` judge the result.

A program takes long in a busy guest. So one program reads all that it can, while the host reads what it knows by itself.
"""

import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from service.errors import AgentAnswerUnreadable, AgentCommandBlocked, AgentCommandFailed, StillpointError
from service.freeze.linux_devices import LIST_DEVICES, read_devices, sections
from service.hypervisor.agent import reading
from service.hypervisor.exec_result import ExecResult
from service.hypervisor.guest import Guest
from service.hypervisor.program import Running
from service.model.disk_coverage import filesystems_of, with_disks
from service.model.inventory import AgentFacts, DomainState, LinuxFacts, OsFamily, Survey
from service.model.verdict import HookState

READ_BUDGET_MS = 20_000
"""Milliseconds for the program that reads the system. After that the facts that the program reads are not known."""
UNWANTED_BUDGET_MS = 2_000
"""Milliseconds to wait for that program where the job has failed meanwhile. After that its output stays in the memory of the agent."""
HOOK_BUDGET_MS = 10_000
"""Milliseconds for the program that reads the hook. After that the hook is not inspected."""
DOMAIN_JOB = "a backup, migration or save"
ANSWERED = (AgentCommandFailed, AgentCommandBlocked, AgentAnswerUnreadable)
"""Errors of an agent that answered without a result. Such an agent still answers other questions."""
DEFAULT_HOOK = "/etc/qemu/fsfreeze-hook"
HOOK_DECLARATION = "stillpoint: reports-failures"
"""With a line of these words the author of a hook declares that failures of its scripts reach its exit status."""

_NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "9p", "virtiofs")

# The agent is the parent of the program. Its exit status says whether this part was read.
_READ_LINUX = r"""
echo @agent; tr '\0' '\n' < /proc/$PPID/cmdline
echo @config; cat /etc/qemu/qemu-ga.conf 2>/dev/null
echo @uptime; cat /proc/uptime
echo @mtab; cat /proc/mounts || exit
"""
# Scripts are the executable files that the hook would run, without the files that editors and package managers leave behind.
_READ_HOOK = r"""
head -c 16384 {hook} 2>/dev/null; echo; echo @scripts
for script in {hook}.d/*; do
    case $script in *~ | *.bak | *.orig | *.sample | *.rpmnew | *.rpmorig | *.rpmsave | *.dpkg-*) continue ;; esac
    if [ -f "$script" ] && [ -x "$script" ]; then echo "$script"; fi
done
"""

_BLOCK_JOB_TYPES = {number: name for name, number in {"pull": 1, "copy": 2, "commit": 3, "active commit": 4, "backup": 5}.items()}


def survey_of(guest: Guest) -> Survey:
    """Read everything. Faults of the agent are facts in the result. Faults of libvirt are raised."""
    return begin(guest, seen_from_outside(guest)).finish()


def seen_from_outside(guest: Guest) -> Survey:
    """What libvirt knows. The agent is not asked."""
    state = guest.state()
    survey = Survey(guest.name, state, guest.disks(), AgentFacts(channel=guest.has_agent_channel()))
    if state is DomainState.shut_off:
        survey.shut_off_cleanly = guest.was_shut_off_cleanly()
    else:
        survey.busy = _busy(guest, [disk.target for disk in survey.disks if disk.why_not is None])
    return survey


def begin(guest: Guest, survey: Survey) -> "SurveyUnderWay":
    """Ask the agent, and begin the program that reads the system inside the guest."""
    under_way = SurveyUnderWay(guest, survey)
    if survey.state is DomainState.running and survey.agent.channel:
        read_agent(guest, survey.agent)
        if _may_be_asked(survey):
            under_way.begin()
    return under_way


class SurveyUnderWay:
    """A fact that cannot be read lowers the verdict or the checks, and never stops the job."""

    def __init__(self, guest: Guest, survey: Survey) -> None:
        self.survey = survey
        self._guest = guest
        self._reading: Running | None = None

    def begin(self) -> None:
        if self.survey.agent.os_family is OsFamily.linux:
            self._begin_reading()

    def _begin_reading(self) -> None:
        if self.survey.agent.allows("guest-exec"):
            with suppress(StillpointError):
                self._reading = self._guest.begin("/bin/sh", ["-c", f"{_READ_LINUX}{LIST_DEVICES}exit 0"])

    def finish(self) -> Survey:
        """Ask the rest, and wait for the program."""
        survey = self.survey
        if not _may_be_asked(survey):
            return survey
        if survey.agent.allows("guest-get-fsinfo"):
            with suppress(StillpointError):
                survey.filesystems = self._guest.filesystems()
        if survey.agent.os_family is OsFamily.unknown and not survey.is_windows:
            self._begin_reading()
        if self._reading is not None:
            with suppress(StillpointError):
                self._read(self._reading.result(READ_BUDGET_MS))
        return survey

    def give_up(self) -> None:
        """Read a result that is not wanted: the agent keeps the output of a program until then. Raises nothing."""
        if self._reading is not None:
            with suppress(StillpointError):
                self._reading.result(UNWANTED_BUDGET_MS)

    def _read(self, result: ExecResult) -> None:
        if result.exit_code != 0:
            return
        survey, text = self.survey, result.output.decode(errors="replace")
        survey.linux = _linux_of(self._guest, sections(text))
        survey.agent.runs_linux = survey.linux.uptime_s is not None
        if survey.agent.runs_linux:
            survey.devices = read_devices(self._guest, text, survey.disks, self._matched())
        if survey.devices is not None:
            known = filesystems_of(survey.devices) if survey.filesystems is None else survey.filesystems
            survey.filesystems = with_disks(known, survey.devices)

    def _matched(self) -> dict[str, str]:
        """By the name in the guest's kernel: libvirt's name of a disk."""
        if self.survey.agent.allows("guest-get-disks"):
            with suppress(StillpointError):
                return self._guest.disks_in_guest()
        return {}


def _may_be_asked(survey: Survey) -> bool:
    is_there = survey.state is DomainState.running and survey.agent.channel
    return is_there and survey.agent.answers and not survey.agent.frozen


def _busy(guest: Guest, targets: list[str]) -> dict[str, str]:
    busy = {
        target: f"block job ({_BLOCK_JOB_TYPES.get(job.get('type', 0), 'unknown')})"
        for target in targets
        if (job := guest.block_job(target))
    }
    if guest.running_libvirt_job() or guest.is_moving():
        busy[""] = DOMAIN_JOB
    return busy


def read_agent(guest: Guest, agent: AgentFacts, may_ask: Callable[[], bool] = lambda: True) -> None:
    """Fill `agent`, also with its fault. `may_ask` False: ask nothing more, because a freeze window may be near.

    If the agent answers a question with an error or with nonsense, only that answer is missing. If the agent does not answer at all, no
    more questions are asked, because each would wait as long.
    """
    try:
        for ask in (_ask_alive, _ask_version, _ask_frozen, _ask_os):
            if not may_ask():
                return
            ask(guest, agent)
    except StillpointError as error:
        agent.fault = error


def _ask_alive(guest: Guest, _: AgentFacts) -> None:
    with suppress(*ANSWERED):
        guest.ping()


def _ask_version(guest: Guest, agent: AgentFacts) -> None:
    with suppress(*ANSWERED):
        information = guest.agent("guest-info")
        with reading(guest.name, "guest-info"):
            agent.version = str(information["version"])
        with reading(guest.name, "guest-info"):
            agent.commands = {str(command["name"]): command["enabled"] is True for command in information["supported_commands"]}


def _ask_frozen(guest: Guest, agent: AgentFacts) -> None:
    if not agent.allows("guest-fsfreeze-status"):
        return
    try:
        agent.frozen = guest.is_frozen()
    except ANSWERED as error:
        # An agent from QEMU 9.1 on without VSS. Its other answers are still useful.
        agent.freeze_fault = error


def _ask_os(guest: Guest, agent: AgentFacts) -> None:
    if not agent.allows("guest-get-osinfo"):
        return
    with suppress(*ANSWERED):
        answer = guest.agent("guest-get-osinfo")
        with reading(guest.name, "guest-get-osinfo"):
            agent.os = {key: value for key, value in answer.items() if isinstance(value, str)}


def _linux_of(guest: Guest, parts: Mapping[str, list[str]]) -> LinuxFacts:
    mounts = [fields for line in parts.get("mtab", []) if len(fields := line.split()) >= 4]
    hook_path = hook_path_of(parts.get("agent", []), parts.get("config", []))
    return LinuxFacts(
        uptime_s=_first_number(parts.get("uptime", [])),
        network_mounts=tuple(mount[1] for mount in mounts if mount[2] in _NETWORK_TYPES),
        loop_mounts=tuple(mount[1] for mount in mounts if mount[0].startswith("/dev/loop") and mount[2] != "squashfs"),
        hook=_read_hook(guest, hook_path) if hook_path else HookState.absent,
        hook_path=hook_path,
    )


def _first_number(lines: list[str]) -> float | None:
    try:
        number = float(lines[0].split()[0])
    except (IndexError, ValueError):
        return None
    return number if math.isfinite(number) else None


def hook_path_of(command_line: list[str], config: list[str]) -> str | None:
    """The hook that this agent runs: -F[PATH] or --fsfreeze-hook[=PATH], otherwise `fsfreeze-hook` in qemu-ga.conf. None: no hook."""
    for argument in command_line[1:]:
        if argument in ("-F", "--fsfreeze-hook"):
            return DEFAULT_HOOK
        if argument.startswith("-F"):
            return argument[2:]
        if argument.startswith("--fsfreeze-hook="):
            return argument.partition("=")[2]
    for line in config:
        key, separator, value = line.partition("=")
        if separator and key.strip() == "fsfreeze-hook":
            return value.strip()
    return None


def _read_hook(guest: Guest, path: str) -> HookState:
    try:
        result = guest.execute("/bin/sh", ["-c", _READ_HOOK.format(hook=shlex.quote(path))], budget_ms=HOOK_BUDGET_MS)
    except StillpointError:
        return HookState.not_inspected
    text, _, scripts = result.output.decode(errors="replace").partition("\n@scripts\n")
    return hook_state(text, has_scripts=bool(scripts.strip()))


def hook_state(text: str, *, has_scripts: bool) -> HookState:
    """Whether a hook's exit status can be trusted. A declaration without any script proves nothing."""
    if HOOK_DECLARATION in text:
        return HookState.truthful if has_scripts else HookState.absent
    if "fsfreeze-hook.d" in text and text.rstrip().endswith("exit 0"):
        return HookState.swallowing
    return HookState.unknown


def as_document(survey: Survey) -> dict[str, Any]:
    """The survey as evidence in the job."""
    return {
        "domain_state": survey.state.value,
        "shut_off_cleanly": survey.shut_off_cleanly,
        "agent": {
            **survey.agent.as_document(),
            "fault": survey.agent.fault.code if survey.agent.fault else None,
            "frozen": survey.agent.frozen,
        },
        "os": survey.agent.os,
        "filesystems": [filesystem.as_document() for filesystem in survey.filesystems] if survey.filesystems is not None else None,
        "fsfreeze_hook": {"state": survey.hook.value, "path": survey.linux.hook_path if survey.linux else None},
        "uptime_s": survey.linux.uptime_s if survey.linux else None,
        "sources": {disk.target: disk.source for disk in survey.disks},
    }
