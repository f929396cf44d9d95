"""The host: libvirt, storage, domains, and the agents in their guests."""

from service.errors.base import StillpointError


class LibvirtUnavailable(StillpointError):
    code = "libvirt_unavailable"
    title = "libvirt cannot be reached"
    detail_template = "No connection to {uri}: {reason}."
    remedy_template = "Start libvirtd on the host. The worker then connects again by itself. `stillpoint doctor` checks libvirt."


class StateFolderUnwritable(StillpointError):
    code = "state_folder_unwritable"
    title = "The state folder cannot be written to"
    detail_template = "{path}: {reason}."
    remedy_template = "Free space in the folder, give the folder to the service's user, or set STILLPOINT_STATE_DIR to another folder."


class LoopDied(StillpointError):
    code = "loop_died"
    title = "A part of the service has died"
    detail_template = "The thread {thread} has ended: {reason}."
    remedy_template = "Restart the service. At its start the service repairs what was left unfinished. Report the error that the log shows."


class LoopHangs(StillpointError):
    code = "loop_hangs"
    title = "A part of the service hangs"
    detail_template = "The thread {thread} has not made a turn for {silent_s} s; it should every {limit_s:.0f} s at the latest."
    remedy_template = (
        "Look at the host (`dmesg`, load, storage that hangs) and at the service's log. If the thread does not continue by itself, "
        "restart the service: it recovers its jobs first."
    )


class LibvirtCallFailed(StillpointError):
    code = "libvirt_call_failed"
    title = "libvirt refused a call"
    detail_template = "{call} failed with libvirt error {libvirt_code}: {message}."
    remedy_template = "Read the message. The libvirt log of the host has more."


class LibvirtCallTimedOut(StillpointError):
    code = "libvirt_call_timed_out"
    title = "A call to libvirt hangs"
    detail_template = "{call} on {domain} did not return within {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "libvirtd or the QEMU of the domain hangs on the host. Read their logs, try whether `virsh domstate {domain}` hangs too, "
        "then retry the job."
    )


class StorageNotAnswering(StillpointError):
    code = "storage_not_answering"
    title = "The storage of the overlays does not answer"
    detail_template = "{what} {path} did not return within {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "Check the mount on the host, and try whether `stat {path}` hangs too. "
        "The storage may still carry out the call when the storage answers again."
    )


class OverlaysLeft(StillpointError):
    code = "overlays_left"
    title = "Unused overlays could not be removed"
    detail_template = "No disk uses {paths}, and the removal failed: {reason}."
    remedy_template = "When the storage can be written again, delete the unused files: `rm -- {paths}`."


class OverlayReplaced(OverlaysLeft):
    """Facts: `paths` of files that are not ours, and `reason`, which also says what could not be removed for other reasons."""

    code = "overlay_replaced"
    title = "Another file lies where an overlay was made"
    detail_template = "{paths} was not removed: {reason}."
    remedy_template = "See who owns the file: `ls -li {paths}`. No disk uses the overlay that was replaced, so its new owner can delete it."


class OverlayInUse(OverlaysLeft):
    """Facts: `paths`, and `reason`: who has them open, or what is in them."""

    code = "overlay_in_use"
    title = "An overlay that no disk names is in use"
    detail_template = "{paths} was not removed: {reason}."
    remedy_template = (
        "Do not delete {paths} while a program has it open (`fuser -v {paths}`), or while the data in it may be needed. "
        "`virsh domblklist DOMAIN --details` shows which files libvirt names; preflight says whether QEMU writes to other files."
    )


class DomainGone(StillpointError):
    code = "domain_gone"
    title = "The domain no longer exists"
    detail_template = "{uri} has no domain {domain}."
    remedy_template = "The domain was undefined after the job was created, or moved to another host. GET /api/v1/domains lists the domains."


class DomainPaused(StillpointError):
    code = "domain_paused"
    title = "The domain is paused"
    detail_template = "{domain} is {state}, so its guest agent cannot answer and nothing can be frozen."
    remedy_template = (
        'Resume the domain (`virsh resume {domain}`), or set {{"freeze": {{"mode": "off"}}}} for a point that is only crash-consistent.'
    )


class DomainStateUnsuitable(StillpointError):
    code = "domain_state_unsuitable"
    title = "The state of the domain does not allow a snapshot"
    detail_template = "{domain} is {state}."
    remedy_template = "Wait until the domain is running or shut off, then retry the job."


class DomainBusy(StillpointError):
    code = "domain_busy"
    title = "Another job of libvirt runs on this domain"
    detail_template = "{domain}: {what}."
    remedy_template = (
        "Wait until the other job ends, then retry this job. "
        "`virsh domjobinfo {domain}` and `virsh blockjob {domain} DISK` show the other job."
    )


class DiskUnknown(StillpointError):
    code = "disk_unknown"
    title = "The domain has no such disk"
    detail_template = "{domain} does not have the disk {disks}. Its disks are: {known}."
    remedy_template = "Name each disk by its target, as in GET /api/v1/domains/{{id}}."


class DisksCannotTakePart(StillpointError):
    code = "disks_cannot_take_part"
    title = "The request names disks that cannot take part in a snapshot"
    detail_template = "{summary}."
    remedy_template = "Remove these disks from `disks`. Without `disks` the job takes every disk that can take part."


class NoDiskCanTakePart(StillpointError):
    code = "no_disk_can_take_part"
    title = "No disk of the domain can take part in a snapshot"
    detail_template = "{domain}: {summary}."
    remedy_template = "A snapshot needs at least one writable file or block device with a known format."


class NoAgentChannel(StillpointError):
    code = "no_agent_channel"
    title = "The domain has no guest agent channel"
    detail_template = "The XML of {domain} has no channel named org.qemu.guest_agent.0."
    remedy_template = (
        "Add the channel (`virsh edit {domain}`), install qemu-guest-agent in the guest and start the domain again. "
        'Or send {{"freeze": {{"mode": "preferred"}}}} and accept a crash-consistent point.'
    )


class AgentNotAnswering(StillpointError):
    code = "agent_not_answering"
    title = "The guest agent does not answer"
    detail_template = "The agent of {domain} did not answer {command} within {timeout_ms} ms: {message}."
    remedy_template = (
        "Check that qemu-guest-agent runs in the guest (`systemctl status qemu-guest-agent`). "
        "If the guest has just started, wait until its agent runs."
    )


class AgentLost(AgentNotAnswering):
    """libvirt refuses every command at once, although the agent has its port open.

    libvirt read something from the agent that made no sense. An example: libvirtd is killed in the middle of an answer. The next libvirtd
    reads the rest of that line and takes the agent for broken.
    """

    code = "agent_lost"
    title = "libvirt has lost the guest agent"
    detail_template = "libvirt does not send {command} to the agent of {domain}, although the agent is connected: {message}."
    remedy_template = (
        "Restart the agent in the guest, over its console or the network (`systemctl restart qemu-guest-agent`; on Windows the service "
        "QEMU-GA). libvirt accepts the agent again when the agent opens its port again."
    )


class AgentBusy(StillpointError):
    """libvirt did not send the command: another client had the agent all the time."""

    code = "agent_busy"
    title = "Another client uses the guest agent"
    detail_template = "The agent of {domain} was not free within {timeout_ms:.0f} ms for {command}; held by {held_by}."
    remedy_template = (
        "libvirt sends an agent one command at a time, and a command of another client still runs (another backup tool, monitoring?). "
        "Retry when that command has ended. If the command never ends, restart the agent in the guest."
    )


class AgentCommandBlocked(StillpointError):
    code = "agent_command_blocked"
    title = "The guest agent is not allowed to run a command"
    detail_template = "The agent of {domain} refuses {command}: {message}."
    remedy_template = (
        "Allow the command in the guest: BLACKLIST_RPC, BLOCK_RPCS or FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga, "
        "or block-rpcs/allow-rpcs in qemu-ga.conf. Then restart the agent."
    )


class WindowsCommandBlocked(AgentCommandBlocked):
    """The same in Windows: the remedy names the places in Windows."""

    remedy_template = (
        "Allow the command in the guest: --block-rpcs (--blacklist in older agents) or --allow-rpcs in the command line of the service "
        "QEMU-GA (`sc qc QEMU-GA` shows the command line), or block-rpcs/allow-rpcs in its qemu-ga.conf. Then restart that service."
    )


class AgentCommandFailed(StillpointError):
    code = "agent_command_failed"
    title = "The guest agent answered with an error"
    detail_template = "{command} on {domain} failed: {message}."
    remedy_template = "The message comes from the agent. The log of the agent in the guest has more."


class AgentAnswerUnreadable(StillpointError):
    code = "agent_answer_unreadable"
    title = "The answer of the guest agent cannot be read"
    detail_template = "The agent of {domain} answered {command} in a form that is not valid ({reason})."
    remedy_template = "Update qemu-guest-agent in the guest. The service used no part of the answer."
