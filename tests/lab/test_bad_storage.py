"""Storage that fails does what its name says, is well again afterwards, and leaves nothing behind, also if its user is killed."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.bad_storage import Storage, storage

MB = 1024 * 1024
HELD_S = 1.0
CLONE = Path(__file__).parents[2]


@pytest.fixture
def disk() -> Iterator[Storage]:
    with storage("test", mb=32) as made:
        (made.path / "known").write_bytes(os.urandom(MB))
        yield made


def write(disk: Storage, name: str = "new", size: int = MB) -> None:
    with (disk.path / name).open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def read(disk: Storage) -> None:
    assert len((disk.path / "known").read_bytes()) == MB


def refusal(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as refused:
        call()
    return refused.value.errno


def seconds_until_it_ended(call: Callable[[], object], begun: float) -> float:
    call()
    return time.monotonic() - begun


def test_a_full_disk_has_no_room_and_then_has_it_again(disk: Storage) -> None:
    with disk.full():
        assert refusal(lambda: write(disk)) == errno.ENOSPC
        read(disk)
    write(disk)
    with disk.full(but_bytes=4 * MB):
        write(disk, "fits")
        assert refusal(lambda: write(disk, "too-large", 8 * MB)) == errno.ENOSPC


def test_a_read_only_disk_can_be_read(disk: Storage) -> None:
    with disk.read_only() as done:
        assert done
        assert refusal(lambda: write(disk)) == errno.EROFS
        read(disk)
    write(disk)


def test_a_disk_with_a_file_that_is_written_does_not_become_read_only(disk: Storage) -> None:
    with (disk.path / "new").open("wb"), disk.read_only(patience_s=0.1) as done:
        assert not done


def test_a_disk_that_is_gone_leaves_an_empty_folder_and_comes_back_with_its_files(disk: Storage) -> None:
    with disk.gone():
        assert list(disk.path.iterdir()) == []
    read(disk)


def test_reads_and_writes_wait_for_a_hung_disk(disk: Storage) -> None:
    with ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        with disk.hung():
            calls = [pool.submit(seconds_until_it_ended, call, begun) for call in (lambda: read(disk), lambda: write(disk))]
            time.sleep(HELD_S)
        assert [call.result() >= HELD_S for call in calls] == [True, True]


def test_only_writes_wait_for_a_frozen_disk(disk: Storage) -> None:
    with ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        with disk.frozen():
            call = pool.submit(seconds_until_it_ended, lambda: write(disk), begun)
            read(disk)
            time.sleep(HELD_S)
        assert call.result() >= HELD_S


def test_a_slow_disk_reads_at_its_rate(disk: Storage) -> None:
    with disk.slow(MB // 2):
        begun = time.monotonic()
        read(disk)
        assert time.monotonic() - begun > 0.5


def test_a_dead_disk_answers_with_errors(disk: Storage) -> None:
    disk.dies()
    assert refusal(lambda: read(disk)) in (errno.EIO, errno.ENOTCONN)


def test_every_fault_can_be_healed_at_once(disk: Storage) -> None:
    disk.fill()
    for fault in (disk.gone(), disk.read_only(), disk.slow(1), disk.frozen(), disk.hung()):
        with fault:
            disk.heal()
            write(disk)


KILLED = """
import time
from tests.lab.bad_storage import storage
with storage("killed", mb=32) as disk, disk.frozen():
    print(disk.path, flush=True)
    {more}
    time.sleep(600)
"""


@pytest.mark.parametrize("more", ["", "disk._monitor.stop()"])
def test_nothing_stays_of_a_disk_whose_user_was_killed_while_it_hung(more: str) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED.format(more=more)], stdout=subprocess.PIPE, text=True, cwd=CLONE) as user:
        assert user.stdout is not None
        path = Path(user.stdout.readline().strip())
        assert path.is_mount()
        writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={path}/waits", "bs=1M", "count=1"], stderr=subprocess.DEVNULL)
        user.kill()
    writer.wait(30)
    until_gone(path)


def until_gone(path: Path) -> None:
    deadline = time.monotonic() + 30
    while path.parent.exists() or str(path.parent) in Path("/proc/self/mounts").read_text() or str(path.parent) in loops():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def loops() -> str:
    return subprocess.run(["losetup"], capture_output=True, text=True, check=True).stdout
