"""What is said of single disks in a verdict."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Uncovered:
    """A disk of the job that no frozen filesystem covers."""

    target: str
    why: str


@dataclass(frozen=True)
class LeftOut:
    """A disk that is not in the point although the guest has filesystems on it.

    `costs_application`: the guest may write there, and nobody asked for a point without it.
    """

    target: str
    reason: str
    mountpoints: tuple[str, ...]
    costs_application: bool
