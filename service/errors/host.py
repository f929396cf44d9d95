"""The host: libvirt, storage, domains, and the agents in their guests."""

from service.errors.base import StillpointError


class LibvirtUnavailable(StillpointError):
    code = "libvirt_unavailable"
    title = "libvirt cannot be reached"
    detail_template = "No connection to {uri}: {reason}."
    remedy_template = "Start libvirtd on the host; the worker connects again by itself. `stillpoint doctor` checks it."


class StateFolderUnwritable(StillpointError):
    code = "state_folder_unwritable"
    title = "The state folder cannot be written to"
    detail_template = "{path}: {reason}."
    remedy_template = "Free space there, give the service's user the folder, or set STILLPOINT_STATE_DIR to another one."


class LoopDied(StillpointError):
    code = "loop_died"
    title = "A part of the service has died"
    detail_template = "The thread {thread} has ended: {reason}."
    remedy_template = "Restart the service: what it left is put in order first. Its log has the error; report it."


class LoopHangs(StillpointError):
    code = "loop_hangs"
    title = "A part of the service hangs"
    detail_template = "The thread {thread} has not made a turn for {silent_s} s; it should every {limit_s:.0f} s at the latest."
    remedy_template = (
        "Look what the host does (`dmesg`, load, storage that hangs) and at the service's log. If it does not go on by itself, "
        "restart the service: what it left is put in order first."
    )


class LibvirtCallFailed(StillpointError):
    code = "libvirt_call_failed"
    title = "libvirt refused a call"
    detail_template = "{call} failed with libvirt error {libvirt_code}: {message}."
    remedy_template = "Read the message; the host's libvirt log has the rest."


class LibvirtCallTimedOut(StillpointError):
    code = "libvirt_call_timed_out"
    title = "A call to libvirt hangs"
    detail_template = "{call} on {domain} was given up after {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "libvirtd or the domain's QEMU hangs on the host: read their logs (`virsh domstate {domain}` hangs, too?), then retry."
    )


class StorageNotAnswering(StillpointError):
    code = "storage_not_answering"
    title = "The storage of the overlays does not answer"
    detail_template = "{what} {path} was given up after {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "Look at the mount on the host (`stat {path}` hangs, too?). What was asked for may still happen when it answers again."
    )


class OverlaysLeft(StillpointError):
    code = "overlays_left"
    title = "Unused overlays could not be removed"
    detail_template = "No disk uses {paths}, and it could not be removed: {reason}."
    remedy_template = "Delete it when the storage can be written again: `rm -- {paths}`."


class OverlayReplaced(OverlaysLeft):
    """Facts: `paths` of files that are not ours, and `reason`, which also says what could not be removed for other reasons."""

    code = "overlay_replaced"
    title = "Another file lies where an overlay was made"
    detail_template = "{paths} was not removed: {reason}."
    remedy_template = (
        "See whose file it is: `ls -li {paths}`. The overlay that was taken away is used by no disk: whoever took it can delete it."
    )


class DomainGone(StillpointError):
    code = "domain_gone"
    title = "The domain no longer exists"
    detail_template = "{uri} has no domain {domain}."
    remedy_template = "It was undefined after the job was created, or moved to another host: see GET /api/v1/domains."


class DomainPaused(StillpointError):
    code = "domain_paused"
    title = "The domain is paused"
    detail_template = "{domain} is {state}, so its guest agent cannot answer and nothing can be frozen."
    remedy_template = (
        'Resume it (`virsh resume {domain}`), or set {{"freeze": {{"mode": "off"}}}} for a point that is only crash-consistent.'
    )


class DomainStateUnsuitable(StillpointError):
    code = "domain_state_unsuitable"
    title = "The domain is in a state in which no snapshot can be taken"
    detail_template = "{domain} is {state}."
    remedy_template = "Wait until it is running or shut off, then try again."


class DomainBusy(StillpointError):
    code = "domain_busy"
    title = "Another job of libvirt runs on this domain"
    detail_template = "{domain}: {what}."
    remedy_template = "Wait until it ends (`virsh domjobinfo {domain}`, `virsh blockjob {domain} DISK`), then retry the job."


class DiskUnknown(StillpointError):
    code = "disk_unknown"
    title = "The domain has no such disk"
    detail_template = "{domain} has no disk {disks}; it has {known}."
    remedy_template = "Name disks by their target, as GET /api/v1/domains/{{id}} lists them."


class DisksCannotTakePart(StillpointError):
    code = "disks_cannot_take_part"
    title = "Disks that were asked for cannot take part in a snapshot"
    detail_template = "{summary}."
    remedy_template = "Leave them out of `disks`, or leave `disks` out to take every disk that can take part."


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
        "Add the channel (`virsh edit {domain}`), install qemu-guest-agent in the guest and start the domain again; "
        'or ask for {{"freeze": {{"mode": "preferred"}}}} and accept a crash-consistent point.'
    )


class AgentNotAnswering(StillpointError):
    code = "agent_not_answering"
    title = "The guest agent does not answer"
    detail_template = "The agent of {domain} did not answer {command} within {timeout_ms} ms: {message}."
    remedy_template = (
        "Check that qemu-guest-agent runs in the guest (`systemctl status qemu-guest-agent`); "
        "a guest that was started seconds ago may need longer."
    )


class AgentLost(AgentNotAnswering):
    """libvirt refuses every command at once, though the agent has its port open. libvirt met something that it could not read.

    A libvirtd that is killed in the middle of an answer leaves the rest of the line to the next libvirtd, which takes the agent for broken.
    """

    code = "agent_lost"
    title = "libvirt has lost the guest agent"
    detail_template = "libvirt sends {command} to the agent of {domain} no more, though the agent is connected: {message}."
    remedy_template = (
        "Restart the agent in the guest, over its console or the network (`systemctl restart qemu-guest-agent`; on Windows the service "
        "QEMU-GA). libvirt takes the agent again as soon as it opens its port anew."
    )


class AgentBusy(StillpointError):
    """Nothing was sent to the agent: libvirt never got to it."""

    code = "agent_busy"
    title = "Somebody else is talking to the guest agent"
    detail_template = "The agent of {domain} was not free within {timeout_ms:.0f} ms for {command}; held by {held_by}."
    remedy_template = (
        "libvirt passes one command at a time to an agent, and another client's still runs (another backup tool, monitoring?). "
        "Retry when it has ended; a command that never ends is ended by restarting the agent in the guest."
    )


class AgentCommandBlocked(StillpointError):
    code = "agent_command_blocked"
    title = "The guest agent is not allowed to run a command"
    detail_template = "The agent of {domain} refuses {command}: {message}."
    remedy_template = (
        "Allow it in the guest: BLACKLIST_RPC, BLOCK_RPCS or FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga, "
        "or block-rpcs/allow-rpcs in qemu-ga.conf; then restart the agent."
    )


class WindowsCommandBlocked(AgentCommandBlocked):
    """The same in Windows, where it is mended in another place."""

    remedy_template = (
        "Allow it in the guest: --block-rpcs (--blacklist in older agents) or --allow-rpcs in the command line of the service QEMU-GA "
        "(`sc qc QEMU-GA` shows it), or block-rpcs/allow-rpcs in its qemu-ga.conf; then restart that service."
    )


class AgentCommandFailed(StillpointError):
    code = "agent_command_failed"
    title = "The guest agent answered with an error"
    detail_template = "{command} on {domain} failed: {message}."
    remedy_template = "The message comes from the guest's agent; its log in the guest has the rest."


class AgentAnswerUnreadable(StillpointError):
    code = "agent_answer_unreadable"
    title = "The guest agent's answer makes no sense"
    detail_template = "The agent of {domain} answered {command} in a form that it must not have ({reason})."
    remedy_template = "Update qemu-guest-agent in the guest. Nothing of the answer was believed."
