"""Facts about single disks in a verdict."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Uncovered:
    """A disk of the job that no frozen filesystem covers."""

    target: str
    why: str


@dataclass(frozen=True)
class LeftOut:
    """A disk that is not in the point although the guest has filesystems on it.

    `costs_application`: the guest may write to the disk, and the caller did not leave the disk out on purpose.
    """

    target: str
    reason: str
    mountpoints: tuple[str, ...]
    costs_application: bool
