"""A libvirt daemon to talk to: the one that is there, untouched, or one of the lab's own that the last user stops."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import libvirt

from tests.lab import images, kvm
from tests.lab.command import program, run
from tests.lab.places import LabError, lab_dir, locked, user_dir
from tests.left_processes import without_mark

REAPER = Path(__file__).with_name("reaper.py")
_START_TIMEOUT = 20.0
VIRTLOGD_SOCKET = "/run/libvirt/virtlogd-sock"
_STATE = Path("/run/libvirt")
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
# Debian has the monolithic daemon; a machine with only the modular one works too.
_DAEMONS = ("libvirtd", "virtqemud")
_MARK = "LAB_OF_STILLPOINT"
"""In the environment of each daemon that the lab started. libvirtd hands its own environment to no guest."""


def uri() -> str:
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


def connect() -> Any:
    """A libvirt connection, without libvirt's habit of printing every error to stderr."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt.open(uri())


class Daemon:
    """Holds a libvirt daemon for as long as it is used. Any number of processes may hold it at once."""

    def __init__(self) -> None:
        self._use: TextIO | None = None

    def ensure(self) -> None:
        """Starts a daemon if none answers, and counts this process as a user of it."""
        with locked("daemon-start", user_dir()):
            if not _answers():
                _start()
            elif own_processes(_installed_daemon()) and os.geteuid() == 0 and not _virtlogd_answers():
                start_virtlogd()
            self._use = (user_dir() / "daemon-use.lock").open("w")
            fcntl.flock(self._use, fcntl.LOCK_SH)

    def stop(self) -> None:
        """Stops what the lab started, unless another process uses it or a guest still runs on it, like one that was left `up`."""
        if self._use is None:
            return
        with locked("daemon-start", user_dir()), self._use as use:
            self._use = None
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not _has_running_guests():
                _stop_own()


def kill_own() -> float | None:
    """SIGKILL for the daemon, as the out-of-memory killer would; its reaper starts it again, as systemd would.

    Returns the seconds until it answered again; None: it is not the lab's own, so it was not touched. Raises LabError.
    """
    pid_file = _pid_file(_installed_daemon())
    if not pid_file.exists() or not _is_ours(reaper := int(pid_file.read_text())):
        return None
    begun = time.monotonic()
    for child in Path(f"/proc/{reaper}/task/{reaper}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == pid_file.stem:
            os.kill(int(child), signal.SIGKILL)
            _wait_until_dead(int(child))
    _wait_for(_answers, pid_file.stem)
    return time.monotonic() - begun


def _wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)


def _has_running_guests() -> bool:
    try:
        connection = connect()
    except libvirt.libvirtError:  # it went away while it was used
        return False
    running = int(connection.numOfDomains()) > 0
    connection.close()
    return running


def _answers() -> bool:
    """Without libvirt's own start of a session daemon, which would go away again after a while."""
    before = os.environ.get("LIBVIRT_AUTOSTART")
    os.environ["LIBVIRT_AUTOSTART"] = "0"
    try:
        connect().close()
    except libvirt.libvirtError:
        return False
    finally:
        del os.environ["LIBVIRT_AUTOSTART"]
        if before is not None:
            os.environ["LIBVIRT_AUTOSTART"] = before
    return True


def _start() -> None:
    if os.geteuid() == 0 and not _virtlogd_answers():  # a session daemon starts its own
        _keep_state_in_memory()
        start_virtlogd()
    name = _installed_daemon()
    _launch(name, [*without_kvm(), program(name)])
    _wait_for(_answers, name)


def start_virtlogd() -> None:
    """In place of one of the lab's own that nobody can reach: the run that started it was killed, and its socket is gone.

    Such a virtlogd holds the lock of its pid file, so that no other can start, and without one no guest can.
    """
    for pid in own_processes("virtlogd"):
        os.kill(pid, signal.SIGKILL)
        _wait_until_dead(pid)
    _launch("virtlogd", [program("virtlogd")])
    _wait_for(_virtlogd_answers, "virtlogd")


def own_processes(name: str) -> list[int]:
    """Of the daemon of this name that the lab started: its reaper first, which would start it again."""
    mark, found = f"{_MARK}={name}\0".encode(), []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and mark in (process / "environ").read_bytes() and Path(process, "root").samefile("/"):
                found.append(int(process.name))
    return sorted(found)


def _keep_state_in_memory() -> None:
    """On every Debian host /run lies in memory. Where it does not (some containers), the lab's daemon gets that for its own part of it:
    libvirt writes the state of a guest there several times in each snapshot, and waits for the disk each time."""
    if _STATE.parent.stat().st_dev != Path("/").stat().st_dev or _STATE.is_mount():
        return
    _STATE.mkdir(exist_ok=True)
    with suppress(LabError):  # a container without the right to; it is only slower
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=64m", "stillpoint-lab", str(_STATE)])


def _give_state_back() -> None:
    mounts = Path("/proc/mounts").read_text().splitlines()
    if any(line.startswith(f"stillpoint-lab {_STATE} ") for line in mounts):
        with suppress(LabError):
            run(["umount", "--lazy", str(_STATE)])


def _wait_for(answers: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while not answers():
        if time.monotonic() > deadline:
            log = lab_dir() / f"{name}.log"
            raise LabError(f"{name} does not answer; {log} ends with:\n{log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.05)


def _virtlogd_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(VIRTLOGD_SOCKET) == 0


def _installed_daemon() -> str:
    for name in _DAEMONS:
        with suppress(LabError):
            program(name)
            return name
    raise LabError("no libvirt daemon is installed; run scripts/install-host-packages")


def without_kvm() -> list[str]:
    """Hides a /dev/kvm that QEMU cannot use, from this daemon only.

    libvirtd examines QEMU with rights that its guests do not have. Where the device is closed to them (mode 0600, no udev), it finds
    each time that the answer it has just stored cannot be true, and asks QEMU again on every call: 30 s to define a guest.
    """
    if not (Path("/dev/kvm").exists() and _QEMU_CONF.exists()) or kvm.usable(images.build()) or os.geteuid() != 0:
        return []
    try:
        run(["unshare", "--mount", "true"])
    except LabError:  # a container without the right to
        return []
    cover = lab_dir() / "no-kvm"
    cover.touch()
    cover.chmod(0o000)
    mounts = f'mount --bind "$0" /dev/kvm; mount --bind "$1" {_QEMU_CONF}; shift; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mounts, str(cover), str(_qemu_conf())]


def _qemu_conf() -> Path:
    """The host's settings, but for the mount namespace of each guest: it cannot be made where something is mounted below /dev."""
    lines = _QEMU_CONF.read_text().splitlines()
    own = lab_dir() / "qemu.conf"
    own.write_text("\n".join([*(line for line in lines if not line.startswith("namespaces")), "namespaces = []", ""]))
    return own


def _launch(name: str, command: list[str]) -> None:
    """The daemon outlives this process on purpose: another may use it next."""
    command = [sys.executable, str(REAPER), *command]
    with (lab_dir() / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", env={**without_mark(), _MARK: name}
        )
    _pid_file(name).write_text(f"{process.pid}\n")
    process.returncode = 0  # nobody here waits for it


def _pid_file(name: str) -> Path:
    return user_dir() / f"{name}.pid"


def _stop_own() -> None:
    for name in (*_DAEMONS, "virtlogd"):
        pid_file = _pid_file(name)
        if not pid_file.exists():
            continue
        pid = int(pid_file.read_text())
        pid_file.unlink()
        if _is_ours(pid):
            os.kill(pid, signal.SIGTERM)
            _wait_until_gone(pid)
        # Whose reaper was killed.
        for orphan in own_processes(name):
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGTERM)
            _wait_until_dead(orphan)
    if os.geteuid() == 0:
        _give_state_back()


def _is_ours(pid: int) -> bool:
    """The number may have been given to another program since; and another clone of the repository may have started it."""
    try:
        return os.fsencode(Path(*REAPER.parts[-3:])) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while _is_ours(pid) and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
