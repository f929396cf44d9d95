"""The narrow door to libvirt: only the calls that Stillpoint makes on a domain, with types.

The rest of the package uses `DomainHandle`. The tests use a fake DomainHandle with state, which raises the same `libvirt.libvirtError`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import libvirt as _libvirt
import libvirt_qemu as _libvirt_qemu

# libvirt-python ships no types: Any stays inside this package.
libvirt: Any = _libvirt
libvirt_qemu: Any = _libvirt_qemu

LibvirtError: type[Exception] = libvirt.libvirtError


class DomainHandle(Protocol):
    """The calls on one domain. Every call may raise libvirtError."""

    def name(self) -> str: ...

    def uuid(self) -> str: ...

    def state(self) -> tuple[int, int]:
        """(VIR_DOMAIN_…, reason)."""
        ...

    def instance(self) -> int:
        """libvirt's id of the running domain, which changes with each start. -1: the domain does not run."""
        ...

    def is_persistent(self) -> bool: ...

    def has_managed_save(self) -> bool: ...

    def snapshot_names(self) -> list[str]:
        """The snapshots that libvirt has metadata of."""
        ...

    def checkpoint_names(self) -> list[str]:
        """Parents come before their children."""
        ...

    def xml(self) -> str:
        """The live XML of a running domain, the persistent XML of a domain that is shut off."""
        ...

    def inactive_xml(self) -> str: ...

    def secure_xml(self) -> str:
        """Like `inactive_xml`, with the passwords in the definition."""
        ...

    def agent_command(self, command: str, timeout_s: int) -> str:
        """One JSON command to the guest agent, with a time limit of its own (F§4.1)."""
        ...

    def snapshot_create(self, xml: str, flags: int) -> None: ...

    def block_job(self, target: str) -> dict[str, Any]:
        """Empty if no block job runs on this disk."""
        ...

    def block_capacity(self, target: str) -> int:
        """Virtual size in bytes."""
        ...

    def bytes_written(self, target: str) -> int:
        """Bytes that the guest has written since the domain was started."""
        ...

    def block_commit_active(self, target: str) -> None:
        """Begin to merge the active overlay into the file right below. The merge continues until a pivot or an abort."""
        ...

    def block_commit(self, target: str, base: str, top: str) -> None:
        """Begin to merge `top`, which is not the active file, into `base` right below. The job ends by itself."""
        ...

    def block_pivot(self, target: str) -> None: ...

    def block_abort(self, target: str) -> None: ...

    def job_type(self) -> int:
        """VIR_DOMAIN_JOB_…. 0: no job runs."""
        ...

    def file_error(self, path: str) -> int | None:
        """The number of the error that libvirt gets when it opens a file of its host. 0: no error. None: libvirt cannot be asked."""
        ...

    def capabilities(self) -> str:
        """The XML of libvirt's capabilities, with its security drivers."""
        ...

    def checkpoint_create(self, xml: str, flags: int) -> None: ...

    def checkpoint_xml(self, name: str, flags: int) -> str: ...

    def checkpoint_delete(self, name: str, flags: int) -> None: ...

    def block_counters(self, target: str) -> dict[str, Any]:
        """By the names of virDomainBlockStatsFlags. A counter that libvirt does not have is missing, or -1."""
        ...

    def disk_errors(self) -> dict[str, int]:
        """VIR_DOMAIN_DISK_ERROR_… of the disks that had an I/O error."""
        ...

    def block_pull(self, target: str, bytes_s: int) -> None:
        """Begin to copy the data of all files below the active file into the active file. `bytes_s` 0: as fast as possible."""
        ...

    def start(self) -> None: ...

    def shut_down(self, flags: int) -> None:
        """Ask the guest to shut down. The guest may do that later, or not at all. `flags` 0: by the agent if there is one."""
        ...

    def destroy(self) -> None:
        """Switch off at once, as when a plug is pulled."""
        ...

    def resume(self) -> None: ...

    def undefine(self, flags: int) -> None: ...

    def define(self, xml: str) -> None:
        """Give the domain another definition, which its next start uses. The XML has the domain's own name and UUID."""
        ...


class LibvirtDomain:
    """DomainHandle on a real virDomain.

    The object outlives its connection: if libvirtd went away during a call, the next call looks the domain up again through `look_up`,
    which makes a new connection. A repeated thaw must not depend on a dead connection.
    """

    def __init__(self, domain: Any, look_up: Callable[[str], Any], is_usable: Callable[[Any], bool] | None = None) -> None:
        """`is_usable`: whether a connection may still be used. Default: every connection that is alive."""
        self._domain = domain
        self._look_up = look_up
        self._is_usable = is_usable or is_alive
        self._name = str(domain.name())
        self._uuid = str(domain.UUIDString())

    def name(self) -> str:
        return self._name

    def uuid(self) -> str:
        return self._uuid

    def state(self) -> tuple[int, int]:
        state, reason = self._live().state()
        return int(state), int(reason)

    def instance(self) -> int:
        # The client library keeps the id of the look-up, even if the domain was stopped or started since then. So look up again.
        return int(self._look_up(self._uuid).ID())

    def is_persistent(self) -> bool:
        return bool(self._live().isPersistent())

    def has_managed_save(self) -> bool:
        return bool(self._live().hasManagedSaveImage(0))

    def snapshot_names(self) -> list[str]:
        return [str(name) for name in self._live().snapshotListNames(0)]

    def checkpoint_names(self) -> list[str]:
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL
        return [str(checkpoint.getName()) for checkpoint in self._live().listAllCheckpoints(flags)]

    def xml(self) -> str:
        return str(self._live().XMLDesc(0))

    def inactive_xml(self) -> str:
        return str(self._live().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def secure_xml(self) -> str:
        return str(self._live().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))

    def agent_command(self, command: str, timeout_s: int) -> str:
        return str(libvirt_qemu.qemuAgentCommand(self._live(), command, timeout_s, 0))

    def snapshot_create(self, xml: str, flags: int) -> None:
        self._live().snapshotCreateXML(xml, flags)

    def block_job(self, target: str) -> dict[str, Any]:
        return dict(self._live().blockJobInfo(target, 0) or {})

    def block_capacity(self, target: str) -> int:
        return int(self._live().blockInfo(target)[0])

    def bytes_written(self, target: str) -> int:
        return int(self._live().blockStats(target)[3])

    def block_commit_active(self, target: str) -> None:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
        self._live().blockCommit(target, None, None, 0, flags)

    def block_commit(self, target: str, base: str, top: str) -> None:
        self._live().blockCommit(target, base, top, 0, 0)

    def block_pivot(self, target: str) -> None:
        self._live().blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)

    def block_abort(self, target: str) -> None:
        self._live().blockJobAbort(target, 0)

    def job_type(self) -> int:
        return int(self._live().jobInfo()[0])

    def file_error(self, path: str) -> int | None:
        return file_error(self._live().connect(), path)

    def capabilities(self) -> str:
        return str(self._live().connect().getCapabilities())

    def checkpoint_create(self, xml: str, flags: int) -> None:
        self._live().checkpointCreateXML(xml, flags)

    def checkpoint_xml(self, name: str, flags: int) -> str:
        return str(self._live().checkpointLookupByName(name, 0).getXMLDesc(flags))

    def checkpoint_delete(self, name: str, flags: int) -> None:
        self._live().checkpointLookupByName(name, 0).delete(flags)

    def block_counters(self, target: str) -> dict[str, Any]:
        return dict(self._live().blockStatsFlags(target, 0))

    def disk_errors(self) -> dict[str, int]:
        return {str(target): int(error) for target, error in self._live().diskErrors(0).items()}

    def block_pull(self, target: str, bytes_s: int) -> None:
        self._live().blockPull(target, bytes_s, libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES)

    def start(self) -> None:
        self._live().create()

    def shut_down(self, flags: int) -> None:
        self._live().shutdownFlags(flags)

    def destroy(self) -> None:
        self._live().destroy()

    def resume(self) -> None:
        self._live().resume()

    def undefine(self, flags: int) -> None:
        self._live().undefineFlags(flags)

    def define(self, xml: str) -> None:
        self._live().connect().defineXML(xml)

    @property
    def connection(self) -> Any:
        return self._domain.connect()

    def _live(self) -> Any:
        domain = self._domain
        if not self._is_usable(domain.connect()):
            domain = self._domain = self._look_up(self._uuid)
        return domain


def is_alive(connection: Any) -> bool:
    """The client library answers without a call to libvirtd, so this may be used inside the window."""
    try:
        return bool(connection.isAlive())
    except LibvirtError:
        # Another thread has seen that the connection is dead, and has closed it.
        return False


def file_error(connection: Any, path: str) -> int | None:
    """See `DomainHandle.file_error`.

    This is the only call that opens any file where libvirt runs and changes nothing. The call is for saved guests: libvirt opens the file,
    and then says that it is not a saved guest. For a file that it cannot open, libvirt raises a system error with the number.
    """
    try:
        connection.saveImageGetXMLDesc(path, 0)
    except LibvirtError as raised:
        error: Any = raised
        code, number = error.get_error_code(), error.get_int1()
        if code in _CANNOT_BE_ASKED:
            return None
        is_of_the_file = code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_error_domain() != libvirt.VIR_FROM_RPC and number > 0
        if code != libvirt.VIR_ERR_OPERATION_FAILED and not is_of_the_file:
            raise
        return int(number) if is_of_the_file else 0
    return 0


_CANNOT_BE_ASKED = frozenset({libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_OPERATION_DENIED})
