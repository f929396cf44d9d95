"""Reading a disk that is written to meanwhile: what was in its files before is never missing."""

import select
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import disks
from tests.lab.command import run
from tests.lab.overlays import make_overlay
from tests.lab.places import LabError

BLOCK = 4096
CLUSTER = 65536
MB = 16
WRITES = list(range(1, 65))
PATIENCE_S = 30.0


class SlowBase:
    """A disk below an overlay that lets whoever opens it wait: the overlay was opened by then, and none of its tables was read."""

    def __init__(self, folder: Path) -> None:
        self.image = base_with_writes(folder)
        self._path = folder / "nbd.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()

    def overlay(self) -> Path:
        top = self.image.with_name("top.qcow2")
        below = f"nbd+unix:///?socket={self._path}"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below, "-F", "raw", top, f"{MB}M"])
        return top

    def wait_for_reader(self, reading: Future[list[int]]) -> None:
        came, _, _ = select.select([self._listener], [], [], PATIENCE_S)
        assert came, reading.exception(0) if reading.done() else "nobody opened the disk below"

    @contextmanager
    def served(self) -> Iterator[None]:
        """The server takes over the socket, and with it the reader who waits in it."""
        number = self._listener.fileno()
        serve = f'exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 exec qemu-nbd --read-only --persistent --shared=4 --format=qcow2 "$0"'
        with subprocess.Popen(["bash", "-c", serve, str(self.image)], pass_fds=[number]) as server:
            try:
                yield
            finally:
                server.terminate()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[SlowBase]:
    slow = SlowBase(tmp_path)
    yield slow
    slow.close()


def base_with_writes(folder: Path) -> Path:
    """What a guest leaves whose meter has written once through its file."""
    meter, raw, image = folder / "meter.dat", folder / "base.raw", folder / "base.qcow2"
    meter.write_bytes(b"".join(block(number) for number in WRITES))
    disks.make_ext4(raw, mb=MB, label="data")
    run(["debugfs", "-w", "-R", f"write {meter} meter.dat", raw])
    run(["qemu-img", "convert", "-O", "qcow2", raw, image])
    return image


def block(number: int) -> bytes:
    return f"SEQ {number:020}\n".encode().ljust(BLOCK, b".")


def write(top: Path, base: Path, offset: int) -> None:
    """One block, in its file when this returns, as after a guest's flush."""
    opened = f"driver=qcow2,file.filename={top},backing.driver=qcow2,backing.file.filename={base}"
    run(["qemu-io", "--image-opts", "-c", f"write -P 46 {offset} {BLOCK}", opened])


def cluster_of(base: Path, number: int) -> int:
    found = base.with_suffix(".raw").read_bytes().index(block(number))
    return found - found % CLUSTER


def test_a_write_below_is_not_lost_when_the_overlay_grows_under_its_reader(base: SlowBase, tmp_path: Path) -> None:
    top, last = base.overlay(), (MB << 20) - BLOCK
    write(top, base.image, last)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(disks.sequences, top, tmp_path)
        base.wait_for_reader(reading)
        length = top.stat().st_size
        # A block of the cluster that is not the meter's: the overlay gets a copy of the cluster, with all that the meter wrote.
        write(top, base.image, cluster_of(base.image, WRITES[20]))
        grown = top.stat().st_size
        with base.served():
            found = reading.result(PATIENCE_S)
    assert grown > length
    assert set(WRITES) <= set(found)


class WrittenTo:
    """Stands for the copying of a file that is written to after each of the first `times` copies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: Path, base: Path, times: int) -> None:
        self.copies, self._times, self._copy = 0, times, disks._copy
        self._top, self._base = top, base
        monkeypatch.setattr(disks, "_copy", self)

    def __call__(self, image: Path, target: Path) -> None:
        self._copy(image, target)
        self.copies += 1
        if self.copies <= self._times:
            write(self._top, self._base, cluster_of(self._base, WRITES[0]) + self.copies * CLUSTER)


@pytest.fixture
def top(base: SlowBase) -> Path:
    return make_overlay(base.image, "top")


def test_a_disk_is_read_only_when_two_copies_of_it_are_equal(
    base: SlowBase, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = WrittenTo(monkeypatch, top, base.image, times=2)
    disks.sequences(top, tmp_path)
    assert written.copies == 4


def test_a_disk_that_never_rests_cannot_be_read(base: SlowBase, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "COPIES", 3)
    WrittenTo(monkeypatch, top, base.image, times=9)
    with pytest.raises(LabError):
        disks.sequences(top, tmp_path)
