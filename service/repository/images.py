"""Names an image for QEMU's programs, and runs `qemu-img`.

A file is never named by a bare file name: a name may have commas, colons and newlines. The format is always said, and never
found by looking, because a guest can write anything to the beginning of its raw disk.
"""

import fcntl
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.repository.report import Report

#: A program that is started so dies with the hand, in whatever way the hand dies.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
KEY = "key0"


class QemuImgFailed(Exception):
    """`reason`: the last line that the program wrote to its standard error."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Image:
    """`backing`: the image below. None: QEMU follows the header of the file. ALONE: the image is opened without any image below."""

    path: str
    format: str
    backing: "Image | str | None" = None
    is_encrypted: bool = False
    #: Another program may write to the file.
    is_in_use: bool = False
    is_compressing: bool = False

    def node(self) -> dict[str, Any]:
        """The options of QEMU's block node."""
        node: dict[str, Any] = {"driver": self.format, "file": {"driver": _driver(self.path), "filename": self.path}}
        if self.is_encrypted:
            node["encrypt"] = {"format": "luks", "key-secret": KEY}
        if self.is_in_use:
            node["force-share"] = True
        if isinstance(self.backing, Image):
            node["backing"] = self.backing.node()
        elif self.backing is not None:
            node["backing"] = None
        return {"driver": "compress", "file": node} if self.is_compressing else node

    def name(self) -> str:
        """The image as the argument of a program."""
        return "json:" + json.dumps(self.node())


ALONE = "alone"


def _driver(path: str) -> str:
    return "host_device" if stat.S_ISBLK(os.stat(path).st_mode) else "file"  # noqa: PTH116 - a Path would change the name


def qemu_img(command: str, arguments: Sequence[str], report: Report | None = None, files: Sequence[int] = ()) -> str:
    """What the program writes. `report`: has the key of an encrypted image. `files`: descriptors that the program gets as well.

    Raises QemuImgFailed.
    """
    return "".join(qemu_img_lines(command, arguments, report, files))


def qemu_img_lines(command: str, arguments: Sequence[str], report: Report | None = None, files: Sequence[int] = ()) -> Iterator[str]:
    """What the program writes, while it writes it. Raises QemuImgFailed at the end."""
    secret, descriptors = secret_arguments(report)
    # A file, as a pipe that nobody reads stops a program that complains much.
    with tempfile.TemporaryFile() as complaints:
        try:
            program = subprocess.Popen(
                [*DIES_WITH_US, "qemu-img", command, *secret, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                errors="replace",
                pass_fds=[*descriptors, *files],
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        assert program.stdout is not None
        try:
            yield from program.stdout
        except BaseException:
            program.kill()
            raise
        finally:
            program.stdout.close()
            program.wait()
        complaints.seek(0)
        if program.returncode:
            text = complaints.read().decode(errors="replace")
            raise QemuImgFailed(last_line(text) or f"qemu-img ended with {program.returncode}")


def qemu_img_watched(arguments: Sequence[str], report: Report, *, good: Sequence[int] = (0,)) -> str:
    """What a program writes that works for long and writes at its end only. It is alive as long as it reads or writes anything.

    `good`: the codes with which it may end. Raises QemuImgFailed.
    """
    secret, descriptors = secret_arguments(report)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        try:
            program = subprocess.Popen(
                [*DIES_WITH_US, "qemu-img", arguments[0], *secret, *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaints,
                pass_fds=descriptors,
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        _watch(program, report)
        output.seek(0)
        complaints.seek(0)
        if program.returncode not in good:
            text = complaints.read().decode(errors="replace")
            raise QemuImgFailed(last_line(text) or f"qemu-img ended with {program.returncode}")
        return output.read().decode(errors="replace")


def _watch(program: "subprocess.Popen[bytes]", report: Report) -> None:
    moved = b""
    while True:
        try:
            program.wait(LOOK_S)
            return
        except subprocess.TimeoutExpired:
            now = Path(f"/proc/{program.pid}/io").read_bytes()
            if now != moved:
                report.alive()
            moved = now


LOOK_S = 0.2
"""Seconds between two looks at a program that runs."""


def secret_arguments(report: Report | None) -> tuple[list[str], list[int]]:
    """The arguments that give a program the key, and the descriptors that it needs. The key itself is in memory only."""
    if report is None or report.key is None:
        return [], []
    with open(report.secret_file(), "rb") as file:  # noqa: PTH123 - a descriptor
        # Not 3, which is the socket of a server (`nbd_server`).
        descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR)
    return ["--object", f"secret,id={KEY},file=/dev/fd/{descriptor}"], [descriptor]


FIRST_DESCRIPTOR = 10
"""The lowest descriptor with which a program gets the key. A lower one may have a meaning there."""


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def create(
    path: Path,
    virtual_size: int,
    *,
    backing_name: str | None = None,
    is_compressed: bool = False,
    encrypted_by: Report | None = None,
) -> None:
    """A new, empty qcow2 in a file that is there already.

    `backing_name`: as the header shall say, relative to the folder of `path`. `encrypted_by`: has the key. Raises QemuImgFailed.
    """
    options = ["compression_type=zstd"] if is_compressed else []
    if encrypted_by is not None:
        options += ["encrypt.format=luks", f"encrypt.key-secret={KEY}", f"encrypt.iter-time={KEY_STRETCHING_MS}"]
    backing = ["-b", backing_name, "-F", "qcow2", "-u"] if backing_name is not None else []
    arguments = ["-q", "-f", "qcow2", *(["-o", ",".join(options)] if options else []), *backing]
    _again_while_busy("create", [*arguments, str(path.absolute()), str(virtual_size)], encrypted_by)


def encrypt(plain: int, target: int, report: Report) -> None:
    """Write a LUKS container with the bytes of the file `plain` into the file `target`. Both are descriptors. Raises QemuImgFailed."""
    options = f"key-secret={KEY},iter-time={KEY_STRETCHING_MS}"
    arguments = ["-q", "-f", "raw", "-O", "luks", "-o", options, _of_descriptor(plain), _of_descriptor(target)]
    _again_while_busy("convert", arguments, report, [plain, target])


def decrypt(container: int, target: int, report: Report) -> None:
    """Write what is in the LUKS container into the file `target`. Both are descriptors. Raises QemuImgFailed."""
    node = {"driver": "luks", "key-secret": KEY, "file": {"driver": "file", "filename": _of_descriptor(container)}}
    arguments = ["-q", "-O", "raw", "json:" + json.dumps(node), _of_descriptor(target)]
    qemu_img("convert", arguments, report, [container, target])


def read_first_sector(image: Image, report: Report) -> None:
    """To see whether the key opens the image. What is read is dropped. Raises QemuImgFailed."""
    with os.fdopen(os.memfd_create("sector", os.MFD_CLOEXEC)) as dropped:
        arguments = ["-O", "raw", "bs=512", "count=1", f"if={image.name()}", f"of={_of_descriptor(dropped.fileno())}"]
        qemu_img("dd", arguments, report, [dropped.fileno()])


def _of_descriptor(descriptor: int) -> str:
    """The path by which a program opens a file that it got from this process."""
    return f"/dev/fd/{descriptor}"


def _again_while_busy(command: str, arguments: Sequence[str], encrypted_by: Report | None, files: Sequence[int] = ()) -> None:
    for attempt in range(MAX_ATTEMPTS):
        try:
            qemu_img(command, arguments, encrypted_by, files)
            return
        except QemuImgFailed as failed:
            if _IS_BUSY not in failed.reason or attempt == MAX_ATTEMPTS - 1:
                raise
        if encrypted_by is not None:
            encrypted_by.alive()


#: QEMU measures how fast this machine computes, and gives up where the clock of its own CPU time is too coarse for that.
_IS_BUSY = "accurate CPU usage"
MAX_ATTEMPTS = 30
"""Attempts to make an encrypted image. On a busy machine each third one fails. After the last one the copy fails."""


KEY_STRETCHING_MS = 100
"""Milliseconds of computing that LUKS puts before a guess of the key. Each image of a chain takes them at each opening."""
