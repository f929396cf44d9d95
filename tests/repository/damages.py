"""What may have happened to a file or a folder of a repository behind the back of the service."""

import os
from pathlib import Path


def becomes_a_link(place: Path) -> None:
    """To itself, at a place beside the repository."""
    elsewhere = place.parents[3] / f"elsewhere-{place.name}"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)


def becomes_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def becomes_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def flips_a_bit(file: Path, offset: int = 0, bit: int = 0) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        (byte,) = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([byte ^ 1 << bit]))


def is_cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)
