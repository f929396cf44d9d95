"""The fuse's own scripts, run by every shell that a guest may have, with files of the test in place of the kernel's."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.freeze.fuse import WHICHEVER, Places, arm_script, disarm_script
from service.model.fuse import FuseState, read_arming, read_ending

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
FAR = 60


@dataclass
class InTheGuest:
    """A place where scripts run. `trigger` is what would be the kernel's."""

    shell: list[str]
    folder: Path

    @property
    def trigger(self) -> Path:
        return self.folder / "sysrq-trigger"

    @property
    def state(self) -> Path:
        return self.folder / "stillpoint-fuse"

    @property
    def places(self) -> Places:
        return Places(str(self.trigger), str(self.folder / "kmsg"), str(self.state), str(self.folder / "cgroup"))

    def run(self, script: str) -> str:
        # As the agent does: the program has ended only when its output is closed, too.
        ended = subprocess.run([*self.shell, "-c", script], capture_output=True, text=True, timeout=10, check=True)
        assert ended.stderr == ""
        return ended.stdout

    def arm(self, after_s: int, token: str = "abc123") -> FuseState:
        return read_arming(self.run(arm_script(token, after_s, self.places)))[0]

    def disarm(self, token: str = "abc123") -> FuseState:
        return read_ending(self.run(disarm_script(token, self.places)))[0]

    def pid(self) -> int:
        return int(self.state.read_text().split()[1])

    def sleeper(self) -> int:
        """What the fuse waits for: its one child."""
        stats = [[*path.read_text().rpartition(")")[2].split(), path.parent.name] for path in _readable("stat")]
        return next(int(fields[-1]) for fields in stats if int(fields[1]) == self.pid())

    def is_lit(self) -> bool:
        return any(str(self.folder) in path.read_text() for path in _readable("cmdline"))

    def wait_for_the_end(self) -> None:
        deadline = time.monotonic() + 10
        while len(self.state.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline, self.state.read_text()
            time.sleep(0.01)


def _readable(name: str) -> Iterator[Path]:
    """That file of every process, while it lasts."""
    for path in Path("/proc").glob(f"[0-9]*/{name}"):
        with suppress(OSError):
            path.read_text()
            yield path


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() != b""


@pytest.fixture(params=SHELLS)
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InTheGuest]:
    shell = SHELLS[request.param]
    if shutil.which(shell[0]) is None:
        pytest.skip(f"this machine has no {shell[0]}")
    guest = InTheGuest(shell, tmp_path)
    guest.trigger.touch()
    (tmp_path / "kmsg").touch()
    yield guest
    guest.disarm(WHICHEVER)


def test_a_fuse_that_nobody_disarms_asks_the_kernel_to_thaw_and_says_so(inside: InTheGuest) -> None:
    assert inside.arm(1) is FuseState.armed
    assert inside.trigger.read_text() == ""

    inside.wait_for_the_end()

    assert inside.trigger.read_text() == "j\n"
    assert "stillpoint" in (inside.folder / "kmsg").read_text()
    assert inside.disarm() is FuseState.fired
    assert not inside.state.exists()


def test_a_fuse_that_is_disarmed_leaves_nothing_behind(inside: InTheGuest) -> None:
    assert inside.arm(FAR) is FuseState.armed
    sleeper = inside.sleeper()
    assert inside.is_lit()
    assert is_running(sleeper)

    assert inside.disarm() is FuseState.disarmed

    assert not inside.is_lit()
    assert not is_running(sleeper)
    assert inside.trigger.read_text() == ""
    assert not inside.state.exists()


def test_a_guest_that_is_told_to_end_everything_is_thawed_at_once(inside: InTheGuest) -> None:
    inside.arm(FAR)
    os.kill(inside.pid(), signal.SIGTERM)

    inside.wait_for_the_end()

    assert inside.trigger.read_text() == "j\n"
    assert not inside.is_lit()


def test_a_fuse_that_was_killed_is_unknown_and_not_disarmed(inside: InTheGuest) -> None:
    inside.arm(FAR)
    sleeper = inside.sleeper()
    os.kill(inside.pid(), signal.SIGKILL)

    assert inside.disarm() is FuseState.unknown

    os.kill(sleeper, signal.SIGKILL)


def test_a_second_fuse_takes_the_place_of_one_that_was_left(inside: InTheGuest) -> None:
    inside.arm(FAR, "first")

    assert inside.arm(FAR, "second") is FuseState.armed

    assert inside.disarm("first") is FuseState.unknown
    assert inside.disarm("second") is FuseState.disarmed
    assert not inside.is_lit()
    assert inside.trigger.read_text() == ""


def test_a_process_that_has_the_number_of_a_fuse_by_now_is_left_alone(inside: InTheGuest) -> None:
    with subprocess.Popen(["sleep", "30"]) as somebody:
        inside.state.write_text(f"abc123 {somebody.pid}\n")
        assert inside.disarm() is FuseState.unknown
        inside.state.write_text(f"left {somebody.pid}\n")
        assert inside.arm(FAR) is FuseState.armed
        assert somebody.poll() is None
        somebody.kill()


def test_whichever_fuse_was_left_can_be_put_out(inside: InTheGuest) -> None:
    inside.arm(FAR, "unknown-to-us")
    assert inside.disarm(WHICHEVER) is FuseState.disarmed
    assert not inside.is_lit()
    assert inside.disarm(WHICHEVER) is FuseState.unknown


def test_without_a_trigger_there_is_no_fuse(inside: InTheGuest) -> None:
    inside.trigger.unlink()
    inside.trigger.mkdir()
    state, reason = read_arming(inside.run(arm_script("abc123", FAR, inside.places)))
    assert state is FuseState.unavailable
    assert str(inside.trigger) in str(reason)
    assert not inside.is_lit()


def test_the_fuse_leaves_the_control_group_of_the_agent(inside: InTheGuest) -> None:
    for group in ("cgroup", "cgroup/systemd"):
        (inside.folder / group).mkdir()
        (inside.folder / group / "cgroup.procs").touch()
    inside.arm(FAR)
    assert (inside.folder / "cgroup/cgroup.procs").read_text() == "0\n"
    assert (inside.folder / "cgroup/systemd/cgroup.procs").read_text() == "0\n"
    assert not (inside.folder / "cgroup/unified").exists()
