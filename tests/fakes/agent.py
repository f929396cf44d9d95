"""A guest with a qemu-ga in it: what it freezes, what it refuses, and in which words (7.2 and 9.1)."""

import base64
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.libvirt_errors import agent_busy, agent_error, agent_not_connected, agent_refused, agent_silent

FREEZABLE = {"ext2", "ext3", "ext4", "xfs", "btrfs"}
WHILE_FROZEN = {"guest-ping", "guest-info", "guest-sync", "guest-sync-delimited", "guest-fsfreeze-status", "guest-fsfreeze-thaw"}
COMMANDS = (
    *("guest-ping", "guest-info", "guest-sync", "guest-sync-delimited", "guest-get-osinfo", "guest-get-fsinfo", "guest-get-disks"),
    *("guest-exec", "guest-exec-status", "guest-shutdown"),
    *("guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw"),
)
DEBIAN = {"id": "debian", "name": "Debian GNU/Linux", "pretty-name": "Debian GNU/Linux 12 (bookworm)", "version-id": "12"}
STOCK_HOOK = '#!/bin/sh\nFSFREEZE_D=$(dirname -- "$0")/fsfreeze-hook.d\nfor file in "$FSFREEZE_D"/* ; do "$file" "$@" ; done\nexit 0\n'
HONEST_HOOK = "#!/bin/sh\n# stillpoint: reports-failures\nexit $status\n"

Program = Callable[[Sequence[str]], tuple[int, bytes, bytes]]


@dataclass(frozen=True)
class FakeFilesystem:
    mountpoint: str
    name: str
    type: str = "ext4"
    disks: tuple[str, ...] = ()
    options: str = "rw,relatime"


def pci_of(target: str) -> dict[str, int]:
    """Where the fake domain has a disk: another place for each target."""
    return {"domain": 0, "bus": int.from_bytes(target.encode()), "slot": 0, "function": 0}


def address_of(target: str) -> dict[str, Any]:
    """A GuestDiskAddress, as the agent of a guest with virtio disks answers it."""
    return {"bus-type": "virtio", "bus": 0, "target": 0, "unit": 0, "pci-controller": pci_of(target)}


@dataclass
class _Process:
    polls_left: int
    result: tuple[int, bytes, bytes]


@dataclass
class FakeAgent:
    """One command at a time, like the real one. `frozen` are the devices whose writes are held."""

    filesystems: list[FakeFilesystem] = field(default_factory=list)
    version: str = "7.2.22"
    os: dict[str, Any] = field(default_factory=lambda: dict(DEBIAN))
    blocked: set[str] = field(default_factory=set)
    #: None: no hook; ok, swallow, fail (on freeze) and fail_thaw are what it does.
    hook: str | None = None
    hook_text: str = STOCK_HOOK
    hook_scripts: tuple[str, ...] = ("10-database",)
    uptime_s: float = 3600.0
    extra_mounts: tuple[str, ...] = ()
    #: Disks that the kernel of the guest sees. What has no filesystem on it is empty, unless the next fields tell otherwise.
    disks: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    #: Device to the type of a filesystem that is mounted in the mount namespace of another process.
    mounted_elsewhere: dict[str, str] = field(default_factory=dict)
    open_by: dict[str, int] = field(default_factory=dict)
    #: Device to what blkid says of it; an empty text: it is not empty, and of no known type.
    contents: dict[str, str] = field(default_factory=dict)
    connected: bool = True
    answers: bool = True
    #: libvirt takes the agent for broken and sends it nothing, though its port is open, until it is restarted.
    is_lost: bool = False
    #: How long a caller really waits for a silent agent, whatever limit it gave: longer than a refusal takes.
    patience_s: float = 0.25
    #: How often guest-exec-status says "not yet".
    exec_polls: int = 0
    #: libvirt's wait for the agent job of another caller (30 s in reality).
    job_wait_s: float = 30.0
    frozen: set[str] = field(default_factory=set)
    is_frozen_flag: bool = False
    #: Frozen from inside the guest: the agent does not know of it, freezes them not again, and ends it with its thaw.
    frozen_inside: set[str] = field(default_factory=set)
    hook_calls: list[str] = field(default_factory=list)
    #: Whether the kernel of the guest can be asked to thaw.
    sysrq: bool = True
    #: Token and last word of the fuse that is in the guest; the word of one that burns is empty.
    fuse: tuple[str, str] | None = None
    programs: dict[str, Program] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    _processes: dict[int, _Process] = field(default_factory=dict)
    _job: threading.RLock = field(default_factory=threading.RLock)
    _freeze_late_s: float | None = None

    def command(self, name: str, arguments: dict[str, Any]) -> Any:
        """The `return` value; errors are libvirt's."""
        if not self.connected:
            raise agent_not_connected()
        if self.is_lost:
            raise agent_refused()
        if not self._job.acquire(timeout=self.job_wait_s):
            raise agent_busy()
        try:
            return self._answer(name, arguments)
        finally:
            self._job.release()

    def freeze_late(self, after_s: float) -> None:
        """The next freeze is not answered in time, and happens all the same `after_s` later."""
        self._freeze_late_s = after_s

    def restart(self) -> None:
        """The guest was reset: nothing is frozen any more."""
        self.frozen.clear()
        self.frozen_inside.clear()
        self.is_frozen_flag = self.is_lost = False

    def thaw_by_somebody_else(self) -> None:
        self.restart()

    def freeze_by_somebody_else(self) -> None:
        self._freeze(None)

    def burn_fuse(self) -> None:
        """Its time is over: the kernel thaws everything, and the agent knows nothing of it."""
        assert self.fuse is not None, "no fuse was armed"
        assert not self.fuse[1], "it does not burn any more"
        self.fuse = (self.fuse[0], "fired")
        self.frozen.clear()

    def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        if not self.answers:
            time.sleep(self.patience_s)
            raise agent_silent()
        if name not in COMMANDS:
            raise agent_error(name, f"The command {name} has not been found")
        if self.is_frozen_flag and name not in WHILE_FROZEN:
            raise agent_error(name, f"Command {name} has been disabled: {self._frozen_reason}")
        if name in self.blocked:
            raise agent_error(name, f"Command {name} has been disabled{self._blocked_reason}")
        method: Callable[..., Any] = getattr(self, "_" + name.removeprefix("guest-").replace("-", "_"))
        return method(**{key.replace("-", "_"): value for key, value in arguments.items()})

    @property
    def _frozen_reason(self) -> str:
        return "the command is not allowed" if self._is_new else "the agent is in frozen state"

    @property
    def _blocked_reason(self) -> str:
        return ": the command is not allowed" if self._is_new else ""

    @property
    def _hook_failure(self) -> str:
        if self._is_new:
            return "child process has failed to execute fsfreeze hook: exit status 3"
        return "fsfreeze hook has failed with status 3"

    @property
    def _is_new(self) -> bool:
        """9.1 or newer: frozen and blocked read alike."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (9, 1)

    # --- commands -------------------------------------------------------------------------------

    def _ping(self) -> dict[str, Any]:
        return {}

    def _info(self) -> dict[str, Any]:
        def enabled(name: str) -> bool:
            return name not in self.blocked and not (self.is_frozen_flag and name not in WHILE_FROZEN)

        rows = [{"name": name, "enabled": enabled(name), "success-response": True} for name in COMMANDS]
        return {"version": self.version, "supported_commands": rows}

    def _get_osinfo(self) -> dict[str, Any]:
        return dict(self.os)

    def _get_fsinfo(self) -> list[dict[str, Any]]:
        return [
            {"name": fs.name, "mountpoint": fs.mountpoint, "type": fs.type, "disk": [address_of(target) for target in fs.disks]}
            for fs in self.filesystems
        ]

    def _get_disks(self) -> list[dict[str, Any]]:
        # The fake's kernel names its disks as libvirt does.
        return [{"name": f"/dev/{name}", "partition": False, "address": address_of(name)} for name in self.disks]

    def _shutdown(self) -> dict[str, Any]:
        return {}

    def _fsfreeze_status(self) -> str:
        return "frozen" if self.is_frozen_flag else "thawed"

    def _fsfreeze_freeze(self) -> int:
        return self._freeze_or_late("guest-fsfreeze-freeze", None)

    def _fsfreeze_freeze_list(self, mountpoints: list[str] | None = None) -> int:
        return self._freeze_or_late("guest-fsfreeze-freeze-list", mountpoints)

    def _freeze_or_late(self, command: str, mountpoints: list[str] | None) -> int:
        if self._freeze_late_s is not None:
            # The agent is busy with the freeze: it answers nobody until it is done.
            timer = threading.Timer(self._freeze_late_s, self._freeze, [mountpoints])
            self._freeze_late_s = None
            timer.daemon = True
            timer.start()
            raise agent_silent()
        if self.hook == "fail":
            self.hook_calls.append("freeze")
            raise agent_error(command, self._hook_failure)
        return self._freeze(mountpoints)

    def _freeze(self, mountpoints: list[str] | None) -> int:
        if self.hook is not None:
            self.hook_calls.append("freeze")
        chosen = [fs for fs in self.filesystems if mountpoints is None or fs.mountpoint in mountpoints]
        self.frozen = {fs.name for fs in chosen if fs.type in FREEZABLE} - self.frozen_inside
        self.is_frozen_flag = bool(self.frozen)
        return len(self.frozen)

    def _fsfreeze_thaw(self) -> int:
        thawed = len(self.frozen | self.frozen_inside)
        self.restart()
        if self.hook is not None:
            self.hook_calls.append("thaw")
        if self.hook == "fail_thaw":
            raise agent_error("guest-fsfreeze-thaw", self._hook_failure)
        return thawed

    # --- programs in the guest ------------------------------------------------------------------

    def unread_programs(self) -> int:
        """Programs whose output the agent still keeps, because nobody has asked for their end."""
        return len(self._processes)

    def _exec(self, path: str, arg: Sequence[str] = (), capture_output: bool = False) -> dict[str, int]:
        self.executed.append(path)
        program = self.programs.get(path) or {"/bin/sync": _sync, "/bin/sh": self._shell, "/bin/echo": _echo}.get(path)
        if program is None:
            text = f"Guest agent command failed, error was 'Failed to execute child process “{path}” (No such file or directory)'"
            raise agent_error("guest-exec", text)
        pid = 100 + len(self.executed)
        self._processes[pid] = _Process(self.exec_polls, program(arg))
        return {"pid": pid}

    def _exec_status(self, pid: int) -> dict[str, Any]:
        process = self._processes.get(pid)
        if process is None:
            raise agent_error("guest-exec-status", "Invalid parameter 'pid'" if self.version < "8.2" else "PID ld does not exist")
        if process.polls_left > 0:
            process.polls_left -= 1
            return {"exited": False}
        del self._processes[pid]
        code, out, err = process.result
        status: dict[str, Any] = {"exited": True, "exitcode": code}
        for key, data in (("out", out), ("err", err)):
            if data:
                status |= {f"{key}-data": base64.b64encode(data).decode(), f"{key}-truncated": False}
        return status

    def _shell(self, arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
        script = arguments[1]
        if script.startswith(": stillpoint-"):
            return 0, self._fuse_script(*script.splitlines()[0].split()[1:]).encode(), b""
        if "@mtab" in script and "@devices" in script:
            return 0, f"{self._survey_text()}{self._devices_text()}".encode(), b""
        if "is_empty" in script:
            return 0, self._contents_text(script).encode(), b""
        if "@scripts" in script:
            return 0, f"{self.hook_text}\n@scripts\n{''.join(name + chr(10) for name in self.hook_scripts)}".encode(), b""
        if script.startswith("exit "):
            return int(script.removeprefix("exit ")), b"", b""
        return 127, b"", b"sh: not found"

    def _fuse_script(self, verb: str, token: str) -> str:
        if verb == "stillpoint-fuse":
            if not self.sysrq:
                return "unavailable: /proc/sysrq-trigger is missing or may not be written\n"
            self.fuse = (token, "")
            return "armed\n"
        if self.fuse is None:
            return "none\n"
        if token not in (self.fuse[0], "*"):
            return "other\n"
        word, self.fuse = self.fuse[1], None
        return f"{word or 'disarmed'}\n"

    def _survey_text(self) -> str:
        lines = ["@agent", "qemu-ga", "-m", "virtio-serial", *(["-F/etc/qemu/fsfreeze-hook"] if self.hook else []), "@config"]
        lines += ["@uptime", f"{self.uptime_s} 12.00", "@mtab", "proc /proc proc rw,relatime 0 0"]
        lines += [f"/dev/{fs.name} {fs.mountpoint} {fs.type} {fs.options} 0 0" for fs in self.filesystems]
        return "\n".join([*lines, *self.extra_mounts]) + "\n"

    def _devices_text(self) -> str:
        parts = {fs.name: disk for fs in self.filesystems for disk in self.disks if fs.name.startswith(disk) and fs.name != disk}
        names = [*self.disks, *parts]
        lines = ["@devices", *[f"{name}|253:{number}|{parts.get(name, '')}||" for number, name in enumerate(names)]]
        lines += [
            "@btrfs",
            "@live",
            "@swaps",
            "Filename Type Size Used Priority",
            *[f"/dev/{name} partition 9 0 -2" for name in self.swaps],
        ]
        lines += ["@mounts", *[self._mountinfo(names, fs.name, fs.mountpoint, fs.type, fs.options) for fs in self.filesystems]]
        lines += ["@elsewhere", "process 612 containerd"]
        lines += [self._mountinfo(names, name, "/srv", kind, "rw") for name, kind in self.mounted_elsewhere.items()]
        lines += ["@open", *[line for name, pid in self.open_by.items() for line in (f"process {pid}", name)]]
        return "\n".join(lines) + "\n"

    def _mountinfo(self, names: Sequence[str], name: str, mountpoint: str, kind: str, options: str) -> str:
        number = f"253:{names.index(name)}" if name in names else "0:99"
        return f"30 1 {number} / {mountpoint} rw,relatime shared:1 - {kind} /dev/{name} {options}"

    def _contents_text(self, script: str) -> str:
        names = re.search(r"for name in (.*); do", script)
        assert names is not None, script
        lines = [f"{name} holds {self.contents[name]}" if name in self.contents else f"{name} empty" for name in names[1].split()]
        return "\n".join(lines) + "\n"


def _sync(_arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
    return 0, b"", b""


def _echo(arguments: Sequence[str]) -> tuple[int, bytes, bytes]:
    return 0, (" ".join(arguments) + "\n").encode(), b""
