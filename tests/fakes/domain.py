"""A domain with disks that really move to their overlays, and faults on demand. Stands behind DomainHandle."""

import errno
import json
import os
import subprocess
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import libvirt as _libvirt

from service.errors import LibvirtUnavailable
from service.hypervisor.checkpoints import checkpoint_xml
from tests.fakes.agent import FakeAgent, FakeFilesystem, pci_of
from tests.fakes.checkpoints import FakeCheckpoints
from tests.fakes.definitions import DefinedDisk, FakeDefinition, chain_of, disks_of, has_channel
from tests.fakes.libvirt_errors import connection_lost, libvirt_error, no_channel, no_domain, not_running

libvirt: Any = _libvirt
T = TypeVar("T")

RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
PAUSED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
SHUT_DOWN = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
MIGRATED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
DESTROYED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED)
CRASHED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
SAVING = (libvirt.VIR_DOMAIN_SHUTDOWN, 0)
IO_ERROR = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
NS_PER_MS = 1_000_000


@dataclass
class FakeDisk:
    target: str
    source: Path | str | None
    format: str = "qcow2"
    device: str = "disk"
    type: str = "file"
    read_only: bool = False
    size: int = 64 * 1024 * 1024
    #: The attribute of that name.
    snapshot: str | None = None
    #: More elements of the definition: in the disk, and in its source.
    says: str = ""
    source_says: str = ""
    #: None: `serial-TARGET`.
    serial: str | None = None


@dataclass(frozen=True)
class PointInTime:
    """What the fake saw at the instant of a snapshot."""

    targets: tuple[str, ...]
    frozen: frozenset[str]


@dataclass
class _Fault:
    error: Exception | None = None
    after: bool = False
    delay_s: float = 0.0
    gate: threading.Event | None = None
    action: Callable[[], object] | None = None
    grave: threading.Event | None = None


@dataclass
class _Chain:
    """Files of one disk, the active one first."""

    disk: FakeDisk
    files: list[tuple[str, str]] = field(default_factory=list)


def _of_this_run() -> uuid.UUID:
    """Programs of FakeQemu are looked for by UUID among all processes of the machine: those of other tests at the same time are not ours.

    The processes that a test starts have the same domains.
    """
    name = f"FAKE_DOMAINS_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    return uuid.UUID(os.environ.setdefault(name, str(uuid.uuid4())))


class FakeDomain:
    """Running unless told otherwise; without `agent` one that answers and has an ext4 on every disk that can be written."""

    def __init__(
        self, name: str, disks: Sequence[FakeDisk], *, agent: FakeAgent | None = None, channel: bool = True, uuid_text: str | None = None
    ) -> None:
        self.state_now: tuple[int, int] = RUNNING
        self.persistent = True
        self.instance_now = 1
        self.exists = True
        #: A folder that this domain's libvirt does not see.
        self.hidden: Path | None = None
        self.channel = channel
        self.agent = agent or FakeAgent([_filesystem(disk) for disk in disks if disk.device == "disk"])
        self.agent.disks = tuple(disk.target for disk in disks if disk.device == "disk")
        self.log: list[str] = []
        self.points: list[PointInTime] = []
        self.block_jobs: dict[str, dict[str, Any]] = {}
        #: Disks with a mirror, to the attributes of it in the XML.
        self.mirrors: dict[str, dict[str, str]] = {}
        #: Where the mirror of a disk writes to when that is not the file below the active one.
        self.mirrored_into: dict[str, str] = {}
        #: By target: what a merge says at each question, bytes done and of how many. It is ready after the last one. None: at once.
        self.merges: dict[str, Iterator[tuple[int, int]]] = {}
        #: Files that an active commit wrote into: none of them shows a point in time any more.
        self.committed_into: set[str] = set()
        #: Merges of a file in the middle, by target: the file, and the file right below it. `merges` tells their course as well.
        self.commits: dict[str, tuple[str, str]] = {}
        #: Merges write into the files, which are real images then.
        self.merges_are_real = False
        #: Such a merge ends, and nothing was merged: what libvirt says after an I/O error.
        self.commits_fail = False
        self.disks = list(disks)
        #: Its memory was saved: the next start goes on with it.
        self.managed_save = False
        #: Snapshots that libvirt keeps record of.
        self.libvirt_snapshots: list[str] = []
        #: libvirt's records, and the bitmaps in the files.
        self.checkpoint_store = FakeCheckpoints(self.source)
        #: Milliseconds that each write and each flush of the guest takes, by target, in the counters that libvirt shows.
        self.latency_ms: dict[str, tuple[float, float]] = {}
        self.counters: dict[str, dict[str, int]] = {}
        #: By target: VIR_DOMAIN_DISK_ERROR_….
        self.io_errors: dict[str, int] = {}
        #: The cause of the I/O error is still there: a domain that is resumed stops again.
        self.io_error_stays = False
        self.ignores_shutdown = False
        #: Questions after which a pull has ended.
        self.pull_steps = 2
        self.definition = FakeDefinition()
        self.domain_job = libvirt.VIR_DOMAIN_JOB_NONE
        #: The guest writes nothing although it could.
        self.is_idle = False
        self.written: dict[str, int] = defaultdict(int)
        self._name = name
        self._uuid = uuid_text or str(uuid.uuid5(_of_this_run(), name))
        self._pulls: dict[str, int] = {}
        self._live = {disk.target: _chain(disk) for disk in disks}
        self._saved = {disk.target: _chain(disk) for disk in disks}
        self._faults: dict[str, deque[_Fault]] = defaultdict(deque)
        self._nonsense: dict[str, deque[str]] = defaultdict(deque)
        self._only: tuple[str, ...] | None = None
        self._untold: Callable[[dict[str, str]], object] | None = None
        self._away_calls = 0
        self._broken = False

    # --- faults ---------------------------------------------------------------------------------

    def fail_next(self, call: str, error: Exception, *, after: bool = False, times: int = 1) -> None:
        """`call`: a method of DomainHandle or an agent command. `after`: it happens, and raises all the same."""
        self._faults[call].extend(_Fault(error, after) for _ in range(times))

    def delay_next(self, call: str, seconds: float) -> None:
        self._faults[call].append(_Fault(delay_s=seconds))

    def hang_next(self, call: str) -> threading.Event:
        """The next such call blocks until the answered event is set."""
        gate = threading.Event()
        self._faults[call].append(_Fault(gate=gate))
        return gate

    def die_in(self, call: str, *, after: bool = False, skip: int = 0) -> threading.Event:
        """Whoever makes this call never comes back from it; the answered event says that it is there. `after`: it had its effect."""
        grave = threading.Event()
        self._faults[call].extend([_Fault()] * skip + [_Fault(after=after, grave=grave)])
        return grave

    def when_next(self, call: str, action: Callable[[], object]) -> None:
        """Something else happens in the world while this call is made, before it has an effect."""
        self._faults[call].append(_Fault(action=action))

    def answer_next(self, command: str, reply: Any, times: int = 1) -> None:
        """The agent executes the command and answers `reply`, whatever it should have been."""
        self._nonsense[command].extend(json.dumps(reply) for _ in range(times))

    def move_only(self, *targets: str) -> None:
        """The next snapshot moves these disks, then fails: what ATOMIC promises never to happen."""
        self._only = targets

    def libvirtd_dies_in_snapshot(self, qemu_switches: Callable[[dict[str, str]], object]) -> None:
        """After QEMU has carried out the next snapshot, and before libvirt saves that: the next libvirtd names the files below."""
        self._untold = qemu_switches

    def libvirtd_goes_away(self, calls: int) -> None:
        """The next call breaks, `calls - 1` more find no libvirtd, then it is back."""
        self._away_calls, self._broken = calls, False

    # --- what happens to a domain ---------------------------------------------------------------

    def shut_off(self, *, cleanly: bool = True) -> None:
        self.state_now = SHUT_DOWN if cleanly else DESTROYED
        self.mirrors.clear()
        self.commits.clear()
        self.block_jobs.clear()
        self._pulls.clear()
        self.io_errors.clear()
        self.agent.restart()

    def kill_qemu(self) -> None:
        """SIGKILL: the bitmaps of the files that were open for writing are broken from now on."""
        self.checkpoint_store.qemu_was_killed([chain.files[0][0] for chain in self._live.values() if chain.files])
        self.shut_off(cleanly=False)
        self.state_now = CRASHED

    def pause_by_io_error(self, target: str = "vda", *, no_space: bool = True) -> None:
        self.state_now = IO_ERROR
        self.io_errors[target] = libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE if no_space else libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC

    def power_cycle(self) -> None:
        """Shut off and started again, between two looks."""
        self.shut_off(cleanly=False)
        self.state_now = RUNNING
        self.instance_now += 1

    def pause(self) -> None:
        self.state_now = PAUSED

    def put_on(self, target: str, path: Path | str, *, live: bool = True, saved: bool = True) -> None:
        """Somebody else moved this disk to a new overlay."""
        for chains in ([self._live] if live else []) + ([self._saved] if saved else []):
            chains[target].files.insert(0, (str(path), "qcow2"))

    def put_disk(self, target: str, path: Path | str) -> None:
        """The disk is on this file, and on what the header of the file names below it."""
        for chains in (self._live, self._saved):
            disk = next(disk for disk in self.disks if disk.target == target)
            chains[target] = _Chain(disk, chain_of(str(path), "qcow2"))

    def exchange(self, first: str, second: str) -> None:
        """Somebody let two disks change places."""
        for chains in (self._live, self._saved):
            chains[first].files, chains[second].files = chains[second].files, chains[first].files

    def detach(self, target: str) -> None:
        """Somebody took this disk out of the domain."""
        for chains in (self._live, self._saved):
            del chains[target]

    def source(self, target: str) -> str:
        """The active file of the running domain, or of the definition."""
        return (self._live if self._is_active else self._saved)[target].files[0][0]

    @property
    def checkpoints(self) -> list[str]:
        return self.checkpoint_store.names()

    @checkpoints.setter
    def checkpoints(self, names: Sequence[str]) -> None:
        """Checkpoints of another tool. The files have their bitmaps."""
        self.checkpoint_store.records.clear()
        targets = [target for target, chain in self._saved.items() if chain.files and not chain.disk.read_only]
        for name in names:
            self.checkpoint_store.create(checkpoint_xml(name, targets), 0, runs=True)

    # --- DomainHandle ---------------------------------------------------------------------------

    def name(self) -> str:
        return self._name

    def uuid(self) -> str:
        return self._uuid

    def state(self) -> tuple[int, int]:
        return self._call("state", lambda: self.state_now)

    def instance(self) -> int:
        return self._call("instance", lambda: self.instance_now if self._is_active else -1)

    def is_persistent(self) -> bool:
        return self._call("is_persistent", lambda: self.persistent)

    def has_managed_save(self) -> bool:
        return self._call("has_managed_save", lambda: self.managed_save)

    def snapshot_names(self) -> list[str]:
        return self._call("snapshot_names", lambda: list(self.libvirt_snapshots))

    def checkpoint_names(self) -> list[str]:
        return self._call("checkpoint_names", self.checkpoint_store.names)

    def xml(self) -> str:
        return self._call("xml", lambda: self._xml(self._live if self._is_active else self._saved, live=self._is_active))

    def secure_xml(self) -> str:
        return self._call("secure_xml", lambda: self._xml(self._saved, live=False))

    def inactive_xml(self) -> str:
        return self._call("inactive_xml", lambda: self._xml(self._saved, live=False))

    def agent_command(self, command: str, timeout_s: int) -> str:
        asked = json.loads(command)
        name = asked["execute"]
        reply = self._call(name, lambda: self._agent(name, asked.get("arguments", {})))
        return self._nonsense[name].popleft() if self._nonsense[name] else reply

    def snapshot_create(self, xml: str, flags: int) -> None:
        self._call("snapshot_create", lambda: self._snapshot(xml, flags))

    def block_commit_active(self, target: str) -> None:
        self._call("block_commit_active", lambda: self._only_active(lambda: self._commit(target)))

    def block_pivot(self, target: str) -> None:
        self._call("block_pivot", lambda: self._pivot(target))

    def block_abort(self, target: str) -> None:
        self._call("block_abort", lambda: [jobs.pop(target, None) for jobs in (self.mirrors, self._pulls, self.commits)])

    def block_commit(self, target: str, base: str, top: str) -> None:
        self._call("block_commit", lambda: self._only_active(lambda: self._commit_below(target, base, top)))

    def _commit_below(self, target: str, base: str, top: str) -> None:
        if target in self.commits or target in self.mirrors or target in self._pulls:
            raise libvirt_error(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, f"block copy still active: disk '{target}' already in active block job")
        files = [path for path, _ in self._live[target].files]
        if (top, base) not in pairwise(files[1:]):
            raise libvirt_error(libvirt.VIR_ERR_INVALID_ARG, f"invalid argument: could not find image '{top}' beneath '{files[0]}'")
        self.commits[target] = (top, base)

    def _really_commit(self, base: str, top: str) -> None:
        if self.merges_are_real:
            subprocess.run(["qemu-img", "commit", "-q", "-f", "qcow2", "-b", base, "-d", top], check=True, capture_output=True)

    def _committing(self, target: str) -> dict[str, Any]:
        progress = next(self.merges.get(target, iter(())), None)
        if progress is None:
            self._end_commit(target)
            return {}
        return {"type": libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT, "bandwidth": 0, "cur": progress[0], "end": progress[1]}

    def _end_commit(self, target: str) -> None:
        """The file above gets another file below, in its header as well: QEMU writes that first, and libvirt's views follow."""
        top, base = self.commits.pop(target)
        if self.commits_fail:
            return
        files = [path for path, _ in self._live[target].files]
        image_format = dict(self._live[target].files)[base]
        self._really_commit(base, top)
        stand_on(files[files.index(top) - 1], base, image_format)
        for chains in (self._live, self._saved):
            chains[target].files[:] = [file for file in chains[target].files if file[0] != top]
        self.committed_into.add(base)
        self.checkpoint_store.merged_into(base, top)

    def _commit(self, target: str) -> None:
        if target in self.mirrors:
            raise libvirt_error(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, f"block copy still active: disk '{target}' already in active block job")
        self.mirrors[target] = {"job": "active-commit", "ready": "no" if target in self.merges else "yes"}
        self.committed_into.add(self._live[target].files[1][0])

    def _pivot(self, target: str) -> None:
        """The active file is merged into the one below, and the guest goes on with that."""
        del self.mirrors[target]
        overlay, base = (path for path, _ in self._live[target].files[:2])
        self._really_commit(base, overlay)
        for chains in (self._live, self._saved):
            chains[target].files.pop(0)
        self.checkpoint_store.merged_into(base, overlay)

    def block_job(self, target: str) -> dict[str, Any]:
        return self._call("block_job", lambda: self._only_active(lambda: self._of_disk(target, self._job(target))))

    def _job(self, target: str) -> dict[str, Any]:
        if target in self.commits:
            return self._committing(target)
        if target in self.mirrors and target in self.merges:
            return self._merging(target)
        if target not in self._pulls:
            return self.block_jobs.get(target, {})
        size = self._live[target].disk.size
        if self._pulls[target] >= self.pull_steps:
            del self._pulls[target]
            for chains in (self._live, self._saved):
                del chains[target].files[1:]
            return {}
        done = size * self._pulls[target] // self.pull_steps
        self._pulls[target] += 1
        return {"type": libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL, "bandwidth": 0, "cur": done, "end": size}

    def _merging(self, target: str) -> dict[str, Any]:
        progress = next(self.merges[target], None)
        if progress is None:
            self.mirrors[target]["ready"] = "yes"
            return {}
        return {"type": libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT, "bandwidth": 0, "cur": progress[0], "end": progress[1]}

    def block_capacity(self, target: str) -> int:
        return self._call("block_capacity", lambda: self._of_disk(target, self._live[target].disk.size))

    def bytes_written(self, target: str) -> int:
        """A guest that is not frozen writes all the time, unless it is told to be idle."""
        if not self.is_idle and self._of_disk(target, target) not in self.agent.frozen | self.agent.frozen_inside:
            self.written[target] += 4096
        return self._call("bytes_written", lambda: self.written[target])

    def job_type(self) -> int:
        return self._call("job_type", lambda: self._only_active(lambda: int(self.domain_job)))

    def file_error(self, path: str) -> int | None:
        return self._call("file_error", lambda: self._file_error(path))

    def capabilities(self) -> str:
        return self._call("capabilities", lambda: CAPABILITIES)

    def checkpoint_create(self, xml: str, flags: int) -> None:
        self._call("checkpoint_create", lambda: self.checkpoint_store.create(xml, flags, runs=self._is_active))

    def checkpoint_xml(self, name: str, flags: int) -> str:
        definition = self._xml(self._saved, live=False)
        return self._call("checkpoint_xml", lambda: self.checkpoint_store.xml(name, flags, definition, runs=self._is_active))

    def checkpoint_delete(self, name: str, flags: int) -> None:
        self._call("checkpoint_delete", lambda: self.checkpoint_store.delete(name, flags, runs=self._is_active))

    def block_counters(self, target: str) -> dict[str, Any]:
        return self._call("block_counters", lambda: self._only_active(lambda: self._of_disk(target, self._counted(target))))

    def _counted(self, target: str) -> dict[str, int]:
        """Between two questions the guest makes ten writes and ten flushes, unless it stands still."""
        names = ("wr_operations", "wr_total_times", "flush_operations", "flush_total_times", "rd_operations", "rd_total_times", "errs")
        counted = self.counters.setdefault(target, dict.fromkeys(names, 0))
        if not self.is_idle and self.state_now == RUNNING and target not in self.agent.frozen:
            write_ms, flush_ms = self.latency_ms.get(target, (0.1, 0.5))
            counted["wr_operations"] += 10
            counted["wr_total_times"] += int(10 * write_ms * NS_PER_MS)
            counted["flush_operations"] += 10
            counted["flush_total_times"] += int(10 * flush_ms * NS_PER_MS)
        return dict(counted)

    def disk_errors(self) -> dict[str, int]:
        return self._call("disk_errors", lambda: self._only_active(lambda: dict(self.io_errors)))

    def block_pull(self, target: str, bytes_s: int) -> None:
        self._call("block_pull", lambda: self._only_active(lambda: self._pull(target)))

    def _pull(self, target: str) -> None:
        self._of_disk(target, None)
        if target in self._pulls or target in self.mirrors:
            raise libvirt_error(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, f"block copy still active: disk '{target}' already in active block job")
        self._pulls[target] = 0

    def start(self) -> None:
        self._call("start", self._start)

    def _start(self) -> None:
        if self._is_active:
            raise libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is already running")
        for chain in self._saved.values():
            if len(chain.files) == 1 and chain.disk.type == "file":
                chain.files[:] = chain_of(*chain.files[0])
            for path, _ in chain.files:
                if chain.disk.type == "file" and not Path(path).exists():
                    message = f"Cannot access storage file '{path}': No such file or directory"
                    raise libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, message)
        self._live = {target: _Chain(chain.disk, list(chain.files)) for target, chain in self._saved.items()}
        self.state_now = RUNNING
        self.instance_now += 1

    def shut_down(self, flags: int) -> None:
        self._call("shut_down", lambda: self._only_active(lambda: None if self.ignores_shutdown else self._ended(cleanly=True)))

    def destroy(self) -> None:
        self._call("destroy", lambda: self._only_active(lambda: self._ended(cleanly=False)))

    def _ended(self, *, cleanly: bool) -> None:
        self.shut_off(cleanly=cleanly)
        self.exists = self.exists and self.persistent

    def resume(self) -> None:
        self._call("resume", self._resume)

    def _resume(self) -> None:
        if self.state_now == IO_ERROR and self.io_error_stays:
            return
        # libvirt names the disk of the last error also after the guest has continued.
        self.state_now = RUNNING

    def undefine(self, flags: int) -> None:
        self._call("undefine", lambda: self._undefine(flags))

    def _undefine(self, flags: int) -> None:
        if self.checkpoint_store.records and not self._is_active and not flags & libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA:
            message = f"Requested operation is not valid: cannot delete inactive domain with {len(self.checkpoints)} checkpoints"
            raise libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID, message)
        self.persistent = False
        self.exists = self._is_active

    def define(self, xml: str) -> None:
        self._call("define", lambda: self._define(xml))

    def _define(self, xml: str) -> None:
        root = ET.fromstring(xml)
        if (root.findtext("name"), root.findtext("uuid")) != (self._name, self._uuid):
            message = f"operation failed: domain '{self._name}' is already defined with uuid {self._uuid}"
            raise libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, message)
        self.definition = FakeDefinition.of(root)
        self.persistent = True
        self._saved = {disk.target: self._defined(disk) for disk in disks_of(root)}
        if not self._is_active:
            self.disks = [chain.disk for chain in self._saved.values()]
            self._live = {target: _Chain(chain.disk, list(chain.files)) for target, chain in self._saved.items()}
            self.channel = has_channel(root)

    def _defined(self, disk: DefinedDisk) -> _Chain:
        known = self._saved.get(disk.target) or _Chain(FakeDisk(disk.target, None))
        source = disk.files[-1][0] if disk.files else None
        said: dict[str, Any] = {
            "format": disk.format,
            "device": disk.device,
            "type": disk.type,
            "read_only": disk.read_only,
            "serial": disk.serial,
        }
        return _Chain(replace(known.disk, source=source, **said), list(disk.files))

    def _file_error(self, path: str) -> int:
        """This libvirt sees the files of the machine, but for what lies below `hidden`."""
        is_hidden = self.hidden is not None and Path(path).is_relative_to(self.hidden)
        return 0 if Path(path).exists() and not is_hidden else errno.ENOENT

    # --- behind it ------------------------------------------------------------------------------

    def _call(self, name: str, action: Callable[[], T]) -> T:
        self.log.append(name)
        self._connection_breaks()
        if not self.exists:
            raise no_domain(self._uuid)
        fault = self._faults[name].popleft() if self._faults[name] else _Fault()
        time.sleep(fault.delay_s)
        if fault.gate is not None:
            fault.gate.wait()
        if fault.action is not None:
            fault.action()
        if fault.grave is not None:
            if fault.after:
                action()
            fault.grave.set()
            threading.Event().wait()
        if fault.error is not None and not fault.after:
            raise fault.error
        result = action()
        if fault.error is not None:
            raise fault.error
        return result

    def _connection_breaks(self) -> None:
        if self._away_calls == 0:
            return
        self._away_calls -= 1
        if not self._broken:
            self._broken = True
            raise connection_lost()
        # The real handle looks the domain up again, and finds nobody to ask.
        raise LibvirtUnavailable(
            uri="fake:///", reason="Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory"
        )

    @property
    def _is_active(self) -> bool:
        return self.state_now[0] not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)

    def _only_active(self, answer: Callable[[], T]) -> T:
        if not self._is_active:
            raise not_running(libvirt.VIR_FROM_DOMAIN)
        return answer()

    def _of_disk(self, target: str, answer: T) -> T:
        if target not in self._live:
            raise libvirt_error(libvirt.VIR_ERR_INVALID_ARG, f"invalid argument: disk '{target}' not found in domain")
        return answer

    def _must_run(self) -> None:
        if self.state_now != RUNNING:
            raise not_running(libvirt.VIR_FROM_QEMU if self._is_active else libvirt.VIR_FROM_DOMAIN)
        if not self.channel:
            raise no_channel()

    def _agent(self, name: str, arguments: dict[str, Any]) -> str:
        self._must_run()
        return json.dumps({"return": self.agent.command(name, arguments)})

    def _snapshot(self, xml: str, flags: int) -> None:
        assert flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY, "a snapshot with memory"
        assert flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT, "libvirt would make the overlays, inside the freeze"
        assert not flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE, "libvirt would freeze by itself"
        if self.checkpoint_store.records and not self._is_active:
            message = "Operation not supported: cannot perform block operations while checkpoint exists"
            raise libvirt_error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, message)
        named = {disk.get("name", ""): disk for disk in ET.fromstring(xml).iterfind("./disks/disk")}
        for target in named.keys() - self._live.keys():
            raise libvirt_error(
                libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
                f"unsupported configuration: no disk named '{target}'",
                libvirt.VIR_FROM_DOMAIN_SNAPSHOT,
            )
        forgotten = [target for target, chain in self._live.items() if target not in named and not chain.disk.read_only]
        assert not forgotten, f"libvirt would snapshot {forgotten} too: disks that are not named take part"
        moves = {target: _overlay_of(disk) for target, disk in named.items() if disk.get("snapshot") == "external"}
        for target, path in moves.items():
            self._check_overlay(target, path)
        only = moves.keys() if self._only is None else set(self._only)
        self.points.append(PointInTime(tuple(moves), frozenset(self.agent.frozen)))
        if self._untold is not None:
            self._untold(moves)
            self._untold = None
            raise connection_lost()
        for target in moves.keys() & only:
            base = self.source(target)
            for chains in (self._live, self._saved):
                chains[target].files.insert(0, (moves[target], "qcow2"))
            if self._is_active:
                self.checkpoint_store.carried_into(moves[target], base)
        if self._only is not None:
            self._only = None
            raise libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: unable to execute QEMU command 'transaction': cut short")

    def _check_overlay(self, target: str, path: str) -> None:
        if not Path(path).exists():
            message = f"missing existing file for disk {target}: {path}: No such file or directory"
            raise libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, message)
        if self._is_active and any(path == used for used, _ in self._live[target].files):
            message = "internal error: unable to execute QEMU command 'blockdev-add': Failed to get \"write\" lock"
            raise libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, message)

    def _xml(self, chains: dict[str, _Chain], *, live: bool) -> str:
        root = ET.Element("domain", type="qemu")
        ET.SubElement(root, "name").text = self._name
        ET.SubElement(root, "uuid").text = self._uuid
        root.extend(self.definition.elements)
        devices = ET.SubElement(root, "devices")
        devices.extend(self.definition.devices)
        for chain in chains.values():
            disk = _add_disk(devices, chain, live=live)
            if live and chain.disk.target in self.mirrors:
                mirror = ET.SubElement(disk, "mirror", self.mirrors[chain.disk.target], type="file")
                ET.SubElement(
                    mirror, "source", file=self.mirrored_into.get(chain.disk.target, chain.files[min(1, len(chain.files) - 1)][0])
                )
        if self.channel:
            channel = ET.SubElement(devices, "channel", type="unix")
            target = ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
            if live:
                target.set("state", "connected" if self.agent.connected else "disconnected")
        if live:
            label = ET.SubElement(root, "seclabel", type="dynamic", model="dac", relabel="yes")
            ET.SubElement(label, "label").text = _QEMU_USER
        return ET.tostring(root, encoding="unicode")


_QEMU_USER = f"+{os.geteuid()}:+{os.getegid()}"
CAPABILITIES = f"""<capabilities><host><secmodel><model>dac</model><doi>0</doi>
<baselabel type='kvm'>{_QEMU_USER}</baselabel></secmodel></host>
<guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine maxCpus='255'>pc-i440fx-7.2</machine><machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
<machine maxCpus='255'>pc-q35-7.2</machine><machine maxCpus='255'>pc-q35-6.2</machine><domain type='qemu'/></arch></guest></capabilities>"""


def _filesystem(disk: FakeDisk) -> FakeFilesystem:
    mountpoint = "/data" if disk.target == "vda" else f"/data-{disk.target}"
    return FakeFilesystem(mountpoint, disk.target, "ext4", (disk.target,), "ro" if disk.read_only else "rw,relatime")


def stand_on(image: str, base: str, image_format: str) -> None:
    command = ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", base, "-F", image_format, image]
    subprocess.run(command, check=True, capture_output=True)


def _chain(disk: FakeDisk) -> _Chain:
    return _Chain(disk, [(str(disk.source), disk.format)] if disk.source is not None else [])


def _overlay_of(disk: ET.Element) -> str:
    source = disk.find("source")
    assert source is not None
    return source.get("file", "")


def _add_disk(devices: ET.Element, chain: _Chain, *, live: bool) -> ET.Element:
    disk = chain.disk
    active_type = disk.type if len(chain.files) < 2 else "file"
    element = ET.SubElement(devices, "disk", type=active_type, device=disk.device)
    ET.SubElement(element, "driver", name="qemu", type=chain.files[0][1] if chain.files else disk.format)
    if chain.files:
        source = ET.SubElement(element, "source", {_attribute(active_type): chain.files[0][0]})
        source.extend(ET.fromstring(f"<more>{disk.source_says}</more>"))
        layer = element
        for path, image_format in chain.files[1:]:
            layer = ET.SubElement(layer, "backingStore", type="file")
            ET.SubElement(layer, "format", type=image_format)
            ET.SubElement(layer, "source", file=path)
        if live:
            ET.SubElement(layer, "backingStore")
    ET.SubElement(element, "target", dev=disk.target, bus="ide" if disk.device == "cdrom" else "virtio")
    if disk.read_only:
        ET.SubElement(element, "readonly")
    if disk.snapshot is not None:
        element.set("snapshot", disk.snapshot)
    element.extend(ET.fromstring(f"<more>{disk.says}</more>"))
    ET.SubElement(element, "serial").text = disk.serial or f"serial-{disk.target}"
    ET.SubElement(element, "address", {"type": "pci", **{part: hex(number) for part, number in pci_of(disk.target).items()}})
    return element


def _attribute(kind: str) -> str:
    return {"block": "dev", "network": "name", "volume": "volume"}.get(kind, "file")
