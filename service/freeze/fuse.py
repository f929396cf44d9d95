"""The fuse in a Linux guest: armed before the freeze, disarmed after the thaw. The fuse thaws when no process of the host can.

The fuse is a shell in the guest. It waits for a `sleep` and then asks the kernel to thaw every filesystem that FIFREEZE has frozen
(SysRq `j`). While the fuse is armed, it opens no file, starts no program and needs no disk, because the root filesystem may be frozen.
"""

import secrets
import time
from dataclasses import dataclass, replace

from service import metrics
from service.errors import AgentCommandBlocked, StillpointError
from service.hypervisor.guest import Guest
from service.model.fuse import FuseReport, FuseState, fires_after_s, read_arming, read_ending
from service.model.inventory import OsFamily, Survey
from service.model.policy import FreezePolicy

ARM_BUDGET_MS = 5_000
"""Milliseconds for the program that arms the fuse. After that the job continues without a fuse."""
DISARM_BUDGET_MS = 10_000
"""Milliseconds for the program that disarms the fuse. After that the fuse stays armed, and ends by itself."""
FOREIGN_HOLD_S = 3.0
"""Seconds to wait for the thaw of another client, because the fuse would end its hold too. Then the fuse stays armed."""
DISARM_PAUSE_S = 0.2
"""Seconds between two tries to disarm a fuse in a guest that another client has frozen."""
KERNEL_LINE = "stillpoint: the fuse has fired, every frozen filesystem is thawed"
"""What a fuse that fires writes into the kernel log of the guest."""
EXEC_BLOCKED = "the guest's agent does not allow guest-exec"


@dataclass(frozen=True)
class Places:
    """Files of the guest that the fuse uses. `state` is in memory, so that the fuse can write while every disk is frozen."""

    trigger: str = "/proc/sysrq-trigger"
    kernel_log: str = "/dev/kmsg"
    state: str = "/run/stillpoint-fuse"
    control_groups: str = "/sys/fs/cgroup"


GUEST_PLACES = Places()
WHICHEVER = "*"


@dataclass(frozen=True)
class Fuse:
    """A fuse that was requested. `token`: identifies this fuse among all fuses of the guest; None: no fuse to disarm."""

    token: str | None
    report: FuseReport
    #: When the fuse fires, of time.monotonic; None: no fuse is armed.
    due_at: float | None = None

    def seconds_left(self) -> float | None:
        """Until the fuse fires; None: no fuse is armed, or its time is over."""
        left = self.due_at - time.monotonic() if self.due_at is not None else 0.0
        return left if left > 0 else None


def arm_for(guest: Guest, survey: Survey, policy: FreezePolicy) -> Fuse | None:
    """Arm a fuse, if the policy asks for one and the guest supports it; None: the policy asks for none. A failure does not stop the job."""
    if not policy.fuse:
        return None
    after_s = fires_after_s(policy.timeout_ms, policy.hold_limits(is_windows=survey.is_windows).hard_ms)
    why_not = _why_not(survey)
    if why_not is not None:
        return Fuse(None, FuseReport(FuseState.unavailable, after_s, why_not))
    return arm(guest, after_s)


def _why_not(survey: Survey) -> str | None:
    if survey.is_windows:
        return "Windows releases the writes by itself"
    if survey.agent.os_family is not OsFamily.linux:
        return "the guest is not known to be a Linux"
    if not survey.agent.allows("guest-exec"):
        return EXEC_BLOCKED
    return None


def arm(guest: Guest, after_s: int) -> Fuse:
    """Returns when the fuse is armed, or cannot be armed. `after_s`: seconds of the guest's clock until the fuse fires.

    The new fuse replaces a fuse that an earlier job could not disarm. Raises nothing: the report says what failed.
    """
    token, start = secrets.token_hex(6), time.monotonic()
    report = FuseReport(FuseState.armed, after_s)
    try:
        result = guest.execute("/bin/sh", ["-c", arm_script(token, after_s)], budget_ms=ARM_BUDGET_MS)
        report = report.now(*read_arming(result.output.decode(errors="replace")))
    except AgentCommandBlocked as error:
        report = report.now(FuseState.unavailable, error.detail)
    except StillpointError as error:
        report = report.now(FuseState.unknown, error.detail)
    is_there = report.state is not FuseState.unavailable
    armed = replace(report, arm_ms=_ms_since(start))
    return Fuse(token, armed, time.monotonic() + after_s) if is_there else Fuse(None, armed)


def disarm(guest: Guest, fuse: Fuse, foreign_hold_s: float = FOREIGN_HOLD_S) -> FuseReport:
    """End the fuse and read what it did. Call this after the thaw was answered. Raises nothing.

    A frozen guest runs no program. If another client froze the guest, wait a little for its thaw, because the fuse would end
    that hold too. If the guest stays frozen, the fuse stays armed and will thaw the guest.
    """
    if fuse.token is None:
        return fuse.report
    start = time.monotonic()
    report = _ask_to_end(guest, fuse.token, fuse.report, start + foreign_hold_s)
    return replace(report, disarm_ms=_ms_since(start))


def disarm_left_fuse(guest: Guest) -> FuseState:
    """End any fuse that a dead worker has left in the guest. For recovery, after its thaw. Raises nothing."""
    report = FuseReport(FuseState.unknown, 0)
    return _ask_to_end(guest, WHICHEVER, report, time.monotonic() + FOREIGN_HOLD_S).state


def _ask_to_end(guest: Guest, token: str, report: FuseReport, deadline: float) -> FuseReport:
    while True:
        try:
            result = guest.execute("/bin/sh", ["-c", disarm_script(token)], budget_ms=DISARM_BUDGET_MS)
        except AgentCommandBlocked as error:
            if time.monotonic() > deadline:
                return report.now(report.state, f"the fuse was left armed: {error.detail}")
        except StillpointError as error:
            return report.now(FuseState.unknown, error.detail)
        else:
            state, reason = read_ending(result.output.decode(errors="replace"))
            if state is FuseState.fired:
                metrics.FUSES_FIRED.inc()
            return report.now(state, reason)
        time.sleep(DISARM_PAUSE_S)


def _ms_since(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 3)


# --- what runs in the guest -----------------------------------------------------------------------
# The scripts run in dash, bash and busybox, and use only programs that every guest has. The first line is a mark, by which the process
# is found in /proc/PID/cmdline: the process id alone may belong to another process by now.

# Arming, in order. 1. Refuse what cannot work. 2. Disarm a fuse that was left. 3. Leave the agent's control group, so that a restart of
# the agent's unit does not end the fuse. 4. Open now the files that are written later. 5. Run `sleep` once, so that the guest need not
# read `sleep` from its disk later.
# The parent ends at once. The agent calls it ended when the child, too, has closed its output: after it said `armed`.
# USR1 disarms. TERM comes from a guest that shuts down, or from a restart of an agent whose group could not be left. A frozen
# filesystem would block the shutdown, and would stay frozen after the restart of the agent, so the fuse thaws at once.
# `3>&-`: no copy of the trigger in a foreign program.
_ARM = r""": stillpoint-fuse {token}
export LC_ALL=C
refuse() {{ echo "unavailable: $1"; exit 0; }}
IFS=.-+ read -r major minor rest < /proc/sys/kernel/osrelease
[ "$((major * 1000 + minor))" -ge 4017 ] || refuse "a kernel $major.$minor, older than 4.17, does not thaw on SysRq"
{{ true > {trigger}; }} 2> /dev/null || refuse "{trigger} is missing or may not be written"
if [ -e {state} ]; then
    read -r _ old < {state}
    {{ read -r line < /proc/$old/cmdline; }} 2> /dev/null
    case $line in *stillpoint-fuse*) kill -USR1 $old ;; esac
    rm -f {state}
fi
{{ true > {state}; }} 2> /dev/null || refuse "{state} cannot be written"
sleep 0 2> /dev/null || refuse "there is no sleep"
for group in {control_groups} {control_groups}/systemd {control_groups}/unified; do
    {{ [ ! -e $group/cgroup.procs ] || echo 0 > $group/cgroup.procs; }} 2> /dev/null
done
{{ echo -1000 > /proc/self/oom_score_adj; }} 2> /dev/null
exec 3> {trigger} 4> /dev/null 5> {state}
{{ true > {kernel_log}; }} 2> /dev/null && exec 4> {kernel_log}
(
    trap '' HUP
    trap 'kill $sleep; echo disarmed >&5; exit 0' USR1
    trap 'kill $sleep' TERM
    sleep {after_s} > /dev/null 2>&1 3>&- 4>&- 5>&- &
    sleep=$!
    echo armed
    exec > /dev/null 2>&1
    wait $sleep
    trap '' USR1 TERM
    echo j >&3 && ending=fired || ending=failed
    echo $ending >&5
    echo "{kernel_line}" >&4
) &
echo {token} $! >&5
"""

# The fuse writes its outcome into the state file. The fuse is not a child of the agent, and a restarted agent does not know the fuse.
# Some versions of `sleep` do not accept fractions of a second.
_DISARM = r""": stillpoint-disarm {token}
[ -e {state} ] || {{ echo none; exit 0; }}
look() {{ {{ read -r token pid; read -r ending; }} < {state}; }}
look
case $token in {token}) ;; *) echo other; exit 0 ;; esac
is_alive() {{
    line=
    {{ read -r line < /proc/$pid/cmdline; }} 2> /dev/null
    case $line in *"stillpoint-fuse $token"*) return 0 ;; esac
    return 1
}}
tries=0
[ -n "$ending" ] || ! is_alive || kill -USR1 $pid
while [ -z "$ending" ] && is_alive && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.02 2> /dev/null || sleep 1
    look
done
look
if [ -z "$ending" ] && is_alive; then
    echo alive
    exit 0
fi
rm -f {state}
echo ${{ending:-gone}}
"""


def arm_script(token: str, after_s: int, places: Places = GUEST_PLACES) -> str:
    return _ARM.format(token=token, after_s=after_s, kernel_line=KERNEL_LINE, **vars(places))


def disarm_script(token: str, places: Places = GUEST_PLACES) -> str:
    """`token` WHICHEVER: whichever fuse is there."""
    return _DISARM.format(token=token, state=places.state)
