"""A disk of its own for a repository, on which storage fails as it does in the field: full, read-only, gone, hung, slow, dead.

An image, shown as a file by qemu-storage-daemon, below a loop device, below an ext4. The daemon that is stopped is a server that does not
answer: whoever reads or writes then waits in the kernel, as on a dead NFS. Only root can mount.

    with storage("repository", mb=64) as disk:
        with disk.hung():
            ...             # disk.path does not answer

Whatever happens to the caller, a process of its own takes the disk apart: no mount, no loop device, no frozen filesystem stays.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.lab.bad_storage_end import Parts
from tests.lab.command import program, run
from tests.lab.disks import make_ext4
from tests.lab.namespaces import libvirt_pids, ways_into
from tests.lab.places import LabError, open_dir, run_dir
from tests.left_processes import without_mark

_END = Path(__file__).with_name("bad_storage_end.py")
_PATIENCE_S = 20.0


@contextmanager
def storage(name: str = "repository", *, mb: int = 64) -> Iterator["Storage"]:
    """A healthy, empty ext4 of the size, mounted for this process, for the lab's libvirtd and for its guests."""
    if os.geteuid() != 0:
        raise LabError("storage that fails needs root")
    folder = open_dir(open_dir(run_dir() / "storage") / f"{name}-{os.getpid()}-{time.monotonic_ns()}")
    parts = Parts(folder)
    with ExitStack() as stack:
        stack.enter_context(_taken_apart(parts))
        made = Storage(parts, stack.enter_context(_server(parts, mb)))
        made.plug_in()
        yield made


class Storage:
    """`path`: where it is mounted. Each fault is a context that ends it; `heal` ends them all."""

    def __init__(self, parts: Parts, monitor: "_Monitor") -> None:
        self.path = parts.mount
        self._parts = parts
        self._monitor = monitor
        self._ballast = parts.mount / "ballast"
        self._device = ""

    def plug_in(self) -> None:
        self._device = run(["losetup", "--find", "--show", self._parts.shown]).strip()
        self._parts.mount.mkdir()
        self._mount()
        run(["rmdir", self.path / "lost+found"])

    @contextmanager
    def full(self, *, but_bytes: int = 0) -> Iterator[None]:
        """Not one block is left, or so many bytes."""
        self.fill(but_bytes=but_bytes)
        try:
            yield
        finally:
            self._ballast.unlink(missing_ok=True)

    def fill(self, *, but_bytes: int = 0) -> None:
        with self._ballast.open("wb") as file:
            size, step = 0, 16 * 1024 * 1024
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
            file.truncate(max(0, size - but_bytes))

    @contextmanager
    def read_only(self, *, patience_s: float = 0.0) -> Iterator[bool]:
        """False: until the end of the patience a file was open for writing, and the kernel refused."""
        done = self._remounted("ro", patience_s)
        try:
            yield done
        finally:
            self._remounted("rw", 0.0)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """The folder is there, and empty: nothing is mounted on it. Files that are open stay open."""
        self._everywhere("umount", "--lazy", str(self.path))
        try:
            yield
        finally:
            self._mount_if_gone()

    @contextmanager
    def hung(self, *, is_forgotten: bool = True) -> Iterator[None]:
        """Reads and writes wait in the kernel until the end. What the host has in its memory of the disk is forgotten before.

        Not `is_forgotten`: the disk hangs at once, for one that is slow takes long to forget. What was read before may still be read.
        """
        if is_forgotten:
            self.forget()
        self._monitor.stop()
        try:
            yield
        finally:
            self._monitor.go_on()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Only writes wait: the filesystem is frozen."""
        run(["fsfreeze", "--freeze", self.path])
        try:
            yield
        finally:
            self._unfreeze()

    @contextmanager
    def slow(self, bytes_s: int) -> Iterator[None]:
        """Reads and writes together, in bytes per second."""
        self.forget()
        self._monitor.limit(bytes_s)
        try:
            yield
        finally:
            self._monitor.limit(0)

    def dies(self) -> None:
        """For good: every call ends with an input/output error from now on."""
        self.forget()
        self._monitor.kill()

    def heal(self) -> None:
        """Answering, mounted, writable, with room. Not after `dies`."""
        self._monitor.go_on()
        self._monitor.limit(0)
        self._mount_if_gone()
        self._unfreeze()
        self._remounted("rw", 0.0)
        self._ballast.unlink(missing_ok=True)

    def forget(self) -> None:
        """The next read comes from the disk, not from the memory of the host."""
        run(["sync", "--file-system", self.path])
        for folder, _folders, files in os.walk(self.path):
            for name in files:
                # A file may be renamed or removed meanwhile.
                with suppress(FileNotFoundError):
                    _forget_file(Path(folder, name))
        _forget_file(self._parts.shown)

    def _unfreeze(self) -> None:
        # It may not be frozen.
        with suppress(LabError):
            run(["fsfreeze", "--unfreeze", self.path])

    def _mount_if_gone(self) -> None:
        if not self.path.is_mount():
            self._mount()

    def _mount(self) -> None:
        self._everywhere("mount", self._device, str(self.path))

    def _everywhere(self, *command: str) -> None:
        """Here, and where the lab's libvirtd has mounts of its own, which its guests share."""
        run(command)
        with ways_into(libvirt_pids()) as ways:
            for way in ways:
                # A libvirtd that was started after the last change has seen that one, and no other.
                with suppress(LabError):
                    run([*way, *command])

    def _remounted(self, how: str, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                run(["mount", "-o", f"remount,{how}", self.path])
                return True
            except LabError:
                if time.monotonic() >= deadline:
                    return False
            time.sleep(0.005)


def _forget_file(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


class _Monitor:
    """The process that serves the disk, spoken to on its standard input."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._listen("QMP")
        self._ask("qmp_capabilities")

    def stop(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def limit(self, bytes_s: int) -> None:
        """0: none."""
        limits = {"bps-total": bytes_s}
        self._ask("qom-set", path="/objects/limits", property="limits", value=limits)

    def _ask(self, command: str, **arguments: Any) -> None:
        _pipe(self._process.stdin).write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._listen("return")

    def _listen(self, word: str) -> None:
        while word not in (told := json.loads(_pipe(self._process.stdout).readline())):
            if "error" in told:
                raise LabError(f"qemu-storage-daemon: {told['error']}")


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    assert end is not None
    return end


@contextmanager
def _server(parts: Parts, mb: int) -> Iterator[_Monitor]:
    make_ext4(parts.image, mb=mb, label="storage")
    parts.shown.touch()
    command = f"""
        {program("qemu-storage-daemon")} --chardev stdio,id=monitor --monitor chardev=monitor
        --object throttle-group,id=limits
        --blockdev driver=file,node-name=image,filename={parts.image},cache.direct=off
        --blockdev driver=throttle,node-name=disk,throttle-group=limits,file=image
        --export type=fuse,id=shown,node-name=disk,mountpoint={parts.shown},writable=on
    """.split()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True, env=without_mark(), cwd="/"
    )
    parts.server.write_text(str(process.pid))
    try:
        monitor = _Monitor(process)
        deadline = time.monotonic() + _PATIENCE_S
        while parts.shown.stat().st_size != parts.image.stat().st_size:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError("qemu-storage-daemon does not show the disk")
            time.sleep(0.01)
        yield monitor
    finally:
        # The other process ends it, in its turn.
        process.returncode = 0
        for pipe in (process.stdin, process.stdout):
            _pipe(pipe).close()


@contextmanager
def _taken_apart(parts: Parts) -> Iterator[None]:
    """At the end of the block, or when this process dies, however it dies."""
    command = [sys.executable, str(_END), str(parts.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=without_mark(), cwd=_END.parents[2])
    try:
        yield
    finally:
        _pipe(process.stdin).close()
        if process.wait(60) != 0:
            raise LabError(f"{parts.folder} could not be taken apart")
