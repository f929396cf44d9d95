"""A domain of this host and the guest in it: freeze, thaw, snapshot, agent commands."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service.deadlines import HELPERS, CallTimedOut, HelperThreads
from service.errors import (
    AgentBusy,
    AgentNotAnswering,
    DomainBusy,
    DomainGone,
    GuestAlreadyFrozen,
    LibvirtCallFailed,
    LibvirtCallTimedOut,
    LibvirtUnavailable,
    StillpointError,
)
from service.hypervisor import agent, security_labels, states
from service.hypervisor.bounded_domain import PIVOT_CALL, SNAPSHOT_CALL, domain_lane
from service.hypervisor.disk_addresses import DiskAddresses
from service.hypervisor.exec_result import ExecResult, result_of
from service.hypervisor.handle import DomainHandle, LibvirtError, libvirt
from service.hypervisor.security_labels import SecurityLabel
from service.hypervisor.xml import Mirror, agent_is_connected, disks_of, has_agent_channel, mirror_of, snapshot_xml
from service.model.inventory import Disk, DomainState, Filesystem

T = TypeVar("T")

NODE_NAME_TAKEN = "Duplicate nodes with node-name"
"""QEMU's own text, which is always English (QEMU, block.c)."""
NODE_NAME_TRIES = 8
"""Calls that are tried before the error counts. A killed call may have used one node name for each of its disks."""
EXEC_POLL_S = 0.02
"""Seconds before the first question whether a program in the guest has ended. The pause doubles with each question."""
EXEC_POLL_MAX_S = 0.5
"""Seconds at which that pause stops to grow."""
STATUS = "guest-fsfreeze-status"


class Guest:
    """Small verbs over one domain. Only this class and `agent` translate libvirt's errors."""

    def __init__(self, handle: DomainHandle, uri: str, helpers: HelperThreads = HELPERS) -> None:
        self._handle = handle
        self._uri = uri
        self._helpers = helpers
        self.name = handle.name()
        self.uuid = handle.uuid()

    # --- what it is -----------------------------------------------------------------------------

    def state(self) -> DomainState:
        state, _ = self._libvirt("virDomainGetState", self._handle.state)
        return states.STATES.get(state, DomainState.other)

    def is_shut_off(self) -> bool:
        return self.state() is DomainState.shut_off

    def was_shut_off_cleanly(self) -> bool | None:
        """None: libvirt does not know (libvirtd was restarted since then), or the domain is not shut off."""
        return states.was_clean(*self._libvirt("virDomainGetState", self._handle.state))

    def was_migrated_away(self) -> bool:
        """The domain is shut off here because it was migrated to another host."""
        return self._libvirt("virDomainGetState", self._handle.state) == states.MIGRATED

    def is_moving(self) -> bool:
        """The domain is being migrated, saved or restored: it is paused, or runs partly on another host."""
        return self._libvirt("virDomainGetState", self._handle.state) in states.MOVING

    def has_managed_save(self) -> bool:
        """The next start of the domain continues with saved memory, and with the files that its disks were on at the save."""
        return self._libvirt("virDomainHasManagedSaveImage", self._handle.has_managed_save)

    def snapshot_names(self) -> list[str]:
        """Snapshots that libvirt has metadata of. Snapshots of this service have no metadata."""
        return self._libvirt("virDomainSnapshotListNames", self._handle.snapshot_names)

    def checkpoint_names(self) -> list[str]:
        """Checkpoints of another backup tool. libvirt takes no snapshot of a domain that is shut off and has a checkpoint."""
        return self._libvirt("virDomainListAllCheckpoints", self._handle.checkpoint_names)

    def instance(self) -> int:
        """A number that changes with each start of the domain, but not with a restart of libvirtd. -1: the domain does not run."""
        return self._libvirt("virDomainGetID", self._handle.instance)

    def xml(self) -> str:
        return self._libvirt("virDomainGetXMLDesc", self._handle.xml)

    def disks(self) -> list[Disk]:
        return disks_of(self.xml())

    def sources(self) -> dict[str, str | None]:
        """By target: the file that libvirt names as the active file of the disk."""
        return {disk.target: disk.source for disk in self.disks()}

    def settled_sources(self) -> dict[str, str | None]:
        """`sources`, unless a call that moves disks still runs in its helper thread.

        Raises LibvirtCallTimedOut while a snapshot or pivot that was given up has not returned, because it may still move disks.
        """
        for call in (SNAPSHOT_CALL, PIVOT_CALL):
            if self._helpers.hangs(call, domain_lane(self.uuid)):
                raise LibvirtCallTimedOut(
                    call=call, domain=self.name, timeout_ms=0, why="the call has not returned yet, and may still move disks"
                )
        return self.sources()

    def persistent_sources(self) -> dict[str, str | None]:
        """Like `sources`, for the definition that the next start will use."""
        return {disk.target: disk.source for disk in disks_of(self._libvirt("virDomainGetXMLDesc", self._handle.inactive_xml))}

    def is_persistent(self) -> bool:
        return self._libvirt("virDomainIsPersistent", self._handle.is_persistent)

    def has_agent_channel(self) -> bool:
        return has_agent_channel(self.xml())

    def agent_is_connected(self) -> bool | None:
        return agent_is_connected(self.xml())

    def capacity(self, target: str) -> int:
        """Virtual size of a disk in bytes."""
        return self._libvirt("virDomainGetBlockInfo", lambda: self._handle.block_capacity(target))

    def bytes_written(self, target: str) -> int:
        """Bytes that the guest has written to a disk since the domain was started."""
        return self._libvirt("virDomainBlockStats", lambda: self._handle.bytes_written(target))

    def running_libvirt_job(self) -> int:
        """VIR_DOMAIN_JOB_… of a backup, migration or save in progress. 0: no such job runs."""
        return self._libvirt("virDomainGetJobInfo", self._handle.job_type)

    def block_job(self, target: str) -> dict[str, Any]:
        """The block job on a disk. Empty: no block job runs."""
        return self._libvirt("virDomainGetBlockJobInfo", lambda: self._handle.block_job(target))

    # --- the files of its host ------------------------------------------------------------------

    @property
    def uri(self) -> str:
        return self._uri

    def file_error(self, path: str) -> int | None:
        """The number of the error that libvirt gets when it opens `path`. 0: no error. None: this libvirt cannot be asked."""
        return self._libvirt("virDomainSaveImageGetXMLDesc", lambda: self._handle.file_error(path))

    def security_labels(self) -> dict[str, SecurityLabel]:
        """By security model: the labels of the running QEMU, or of the definition if the domain is shut off."""
        return security_labels.of_domain(self.xml())

    def security_drivers(self) -> dict[str, SecurityLabel]:
        """By security model: the drivers of the host, each with the label of a QEMU whose definition names no label."""
        return security_labels.of_host(self._libvirt("virConnectGetCapabilities", self._handle.capabilities))

    # --- merging an overlay back ----------------------------------------------------------------

    def start_merge(self, target: str) -> None:
        """Begin to merge the active file of a disk into the file right below."""
        self._libvirt("virDomainBlockCommit", lambda: self._handle.block_commit_active(target))

    def mirror(self, target: str) -> Mirror | None:
        """The merge of a disk that is under way, or another block job that writes the disk into a file."""
        return mirror_of(self.xml(), target)

    def pivot(self, target: str) -> None:
        """Switch the disk to the file below. The overlay is not used any more."""
        self._libvirt(PIVOT_CALL, lambda: self._handle.block_pivot(target))

    def stop_merge(self, target: str) -> None:
        """Stop the merge. The disk continues with its overlay."""
        self._libvirt(PIVOT_CALL, lambda: self._handle.block_abort(target))

    # --- the agent ------------------------------------------------------------------------------

    def agent(self, command: str, arguments: dict[str, Any] | None = None, *, timeout_ms: int = agent.QUERY_TIMEOUT_MS) -> Any:
        """Send one agent command. Raises the errors of `service.hypervisor.agent.call`."""
        return agent.call(self._handle, command, arguments, timeout_ms=timeout_ms)

    def ping(self) -> None:
        self.agent("guest-ping", timeout_ms=agent.PING_TIMEOUT_MS)

    def is_frozen(self) -> bool:
        """The answer of the agent. On Windows the answer is a flag of the agent, and not a measurement (F§0.1)."""
        return bool(self.agent(STATUS, timeout_ms=agent.PING_TIMEOUT_MS) == "frozen")

    def require_idle_agent(self, within_ms: int) -> None:
        """The last question before a freeze: no other client uses the agent, and no client has frozen the guest.

        Raises AgentBusy if the agent does not answer in time: libvirt lets a command wait 30 s for the command of another client, and
        inside the window that wait would be a stall. After AgentBusy nothing may be frozen, because the question is still in libvirt's
        queue and would come before our thaw. Raises GuestAlreadyFrozen, and the errors of an agent command.
        """
        # The same limit inside libvirt, so that a question that was given up does not hold the agent for long later.
        lane, ask = f"agent-check {self.uuid}", lambda: self.agent(STATUS, timeout_ms=within_ms)
        try:
            frozen = self._helpers.run(ask, within_ms / 1000, call=STATUS, lane=lane) == "frozen"
        except CallTimedOut as hung:
            raise AgentBusy(domain=self.name, command=STATUS, timeout_ms=within_ms, held_by="another client or a hung command") from hung
        if frozen:
            raise GuestAlreadyFrozen(domain=self.name)

    def filesystems(self) -> list[Filesystem]:
        """Mounted filesystems, with the targets of the disks below them. Fails while the guest is frozen (F§4.1)."""
        rows = self.agent("guest-get-fsinfo")
        addresses = self._disk_addresses()
        with agent.reading(self.name, "guest-get-fsinfo"):
            return [
                Filesystem(str(row["mountpoint"]), str(row["name"]), str(row["type"]), addresses.targets_of(row["disk"])) for row in rows
            ]

    def disks_in_guest(self) -> dict[str, str]:
        """By the name in the guest's kernel: libvirt's target of each whole disk that is a disk of the domain."""
        rows = self.agent("guest-get-disks")
        addresses = self._disk_addresses()
        with agent.reading(self.name, "guest-get-disks"):
            whole = [row for row in rows if not row["partition"] and row.get("address") is not None]
            targets = {str(row["name"]).removeprefix("/dev/"): addresses.target_of(row["address"]) for row in whole}
        return {name: target for name, target in targets.items() if target is not None}

    def _disk_addresses(self) -> DiskAddresses:
        return DiskAddresses(self._libvirt("virDomainGetXMLDesc", self._handle.xml))

    def freeze(self, mountpoints: Sequence[str] | None, timeout_ms: int) -> int:
        """Freeze all filesystems, or only those of `mountpoints`. Returns the agent's count.

        Sent as an agent command and not by virDomainFSFreeze, because only an agent command has a time limit that no other client of the
        domain shares (F§4.1). After AgentNotAnswering the guest may still freeze later.
        """
        if mountpoints is None:
            return self._count("guest-fsfreeze-freeze", None, timeout_ms)
        return self._count("guest-fsfreeze-freeze-list", {"mountpoints": list(mountpoints)}, timeout_ms)

    def thaw(self, timeout_ms: int) -> int:
        """Thaw everything. Returns the agent's count. After AgentCommandFailed, which is an answer, the guest is thawed, too (F§0.2)."""
        return self._count("guest-fsfreeze-thaw", None, timeout_ms)

    def _count(self, command: str, arguments: dict[str, Any] | None, timeout_ms: int) -> int:
        answer = self.agent(command, arguments, timeout_ms=timeout_ms)
        with agent.reading(self.name, command):
            if not isinstance(answer, int):
                raise TypeError(f"{answer!r} is not a count")
            return answer

    def execute(self, path: str, arguments: Sequence[str] = (), *, budget_ms: int) -> ExecResult:
        """Run a program in the guest and wait for its end. Raises AgentNotAnswering if the program does not end within the budget."""
        started = self.agent("guest-exec", {"path": path, "arg": list(arguments), "capture-output": True})
        with agent.reading(self.name, "guest-exec"):
            pid = started["pid"]
        deadline = time.monotonic() + budget_ms / 1000
        pause = EXEC_POLL_S
        while True:
            status = self.agent("guest-exec-status", {"pid": pid})
            with agent.reading(self.name, "guest-exec-status"):
                if status["exited"]:
                    return result_of(status)
            if time.monotonic() > deadline:
                raise AgentNotAnswering(
                    domain=self.name, command=f"guest-exec {path}", timeout_ms=budget_ms, message="the program still runs"
                )
            time.sleep(pause)
            pause = min(pause * 2, EXEC_POLL_MAX_S)

    # --- the point in time ----------------------------------------------------------------------

    def prepare_snapshot(self, overlays: dict[str, str]) -> Callable[[], None]:
        """Prepare the snapshot before the freeze. The returned call only asks libvirt.

        `overlays`: by target, the path of an overlay that exists already. Flags: all disks move or none (ATOMIC), libvirt makes no file
        (REUSE_EXT) and keeps no metadata (NO_METADATA). QUIESCE is never used (F§0.9). The call raises LibvirtCallFailed or
        LibvirtUnavailable; look at `sources` then.
        """
        document = snapshot_xml(overlays, [disk.target for disk in self.disks()])
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        )

        return lambda: self._take(document, flags)

    def _take(self, document: str, flags: int) -> None:
        """Take the snapshot, and try again if a node name is taken.

        A killed libvirtd continues to count the names of block nodes from its state file, so it may choose names that QEMU has already
        (seen with 9.0.0). Such a call fails before a disk is moved, and each call chooses new names.
        """
        for _ in range(NODE_NAME_TRIES):
            try:
                self._libvirt(SNAPSHOT_CALL, lambda: self._handle.snapshot_create(document, flags))
                return
            except LibvirtCallFailed as error:
                failed = error
                if NODE_NAME_TAKEN not in error.facts["message"]:
                    break
        raise failed

    def _libvirt(self, call: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except LibvirtError as error:
            raise self._translated(call, error) from error
        except SystemError as error:
            # libvirt-python raises this for an error text that is not UTF-8, for example a text that quotes a file name.
            raise LibvirtCallFailed(call=call, libvirt_code=0, message="libvirt's error text is not UTF-8") from error

    def _translated(self, call: str, error: Any) -> StillpointError:
        message = (error.get_error_message() or "no message").strip()
        if agent.is_connection_lost(error):
            return LibvirtUnavailable(uri=self._uri, reason=message)
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return DomainGone(uri=self._uri, domain=self.name)
        holder = agent.lock_holder(error)
        if holder is not None and holder.startswith("agent="):
            return AgentBusy(domain=self.name, command=call, timeout_ms=agent.LOCK_WAIT_MS, held_by=holder)
        if holder is not None:
            return DomainBusy(domain=self.name, what=f"the lock of the domain is held by {holder}")
        return LibvirtCallFailed(call=call, libvirt_code=error.get_error_code(), message=message)
