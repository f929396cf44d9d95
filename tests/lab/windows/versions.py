"""What an agent of a given version does differently. The version is of the build, and not always of QEMU."""

from dataclasses import dataclass

# virtio-win counts for itself from 100 on; the generation is the QEMU release whose behaviour it shows, by date where no more is known.
_VIRTIO_WIN = {
    100: (3, 1),
    101: (5, 1),
    102: (6, 1),
    103: (6, 2),
    104: (7, 0),
    105: (7, 2),
    106: (8, 1),
    107: (8, 2),
    108: (9, 0),
    109: (9, 2),
    110: (10, 1),
}
_AFTER_VIRTIO_WIN_110 = (10, 2)
# Builds of RHEV, when upstream was at 2.x; 7.2 is taken for upstream.
_RHEV = {(7, 3): (2, 5), (7, 4): (2, 9), (7, 5): (2, 12), (7, 6): (2, 12)}


@dataclass(frozen=True)
class AgentVersion:
    """`generation`: the QEMU release that it behaves like."""

    text: str
    generation: tuple[int, int]

    @property
    def freeze_limit_s(self) -> float:
        """How long the agent waits for VSS to report frozen."""
        return 60.0 if self.generation >= (6, 1) else 10.0

    @property
    def says_hresult(self) -> bool:
        return self.generation >= (10, 2)

    @property
    def always_says_truncated(self) -> bool:
        """Older ones send the key only when output was cut off, and then with the value false."""
        return self.generation >= (10, 2)

    @property
    def lists_unsupported_commands(self) -> bool:
        return self.generation < (9, 1)

    @property
    def disables_freeze_without_vss(self) -> bool:
        """Later ones keep the commands and answer them with an error."""
        return self.generation < (9, 1)

    @property
    def knows_capture_modes(self) -> bool:
        return self.generation >= (8, 1)

    def disabled_while_frozen(self, command: str) -> str:
        if self.generation < (6, 0):
            return f"The command {command} has been disabled for this instance"
        if self.generation < (9, 1):
            return f"Command {command} has been disabled: the agent is in frozen state"
        return f"Command {command} has been disabled: the command is not allowed"

    def disabled(self, command: str) -> str:
        """By the administrator, or because this Windows does not have it."""
        if self.generation < (6, 0):
            return f"The command {command} has been disabled for this instance"
        if self.generation < (9, 1):
            return f"Command {command} has been disabled"
        return f"Command {command} has been disabled: the command is not allowed"

    def unknown_pid(self) -> str:
        # From 8.2 on the number is lost in a wrong format of the agent's own.
        return "Invalid parameter 'pid'" if self.generation < (8, 2) else "PID lld does not exist"

    def frozen_event_timeout(self) -> str:
        if self.generation < (2, 11):
            return "couldn't receive Frozen event from VSS provider"
        return "timeout when try to receive Frozen event from VSS provider"


def agent_version(text: str) -> AgentVersion:
    """Raises ValueError when it does not begin with two numbers."""
    major, minor = (int(part) for part in text.split(".")[:2])
    if major >= 100:
        return AgentVersion(text, _VIRTIO_WIN.get(major, _AFTER_VIRTIO_WIN_110))
    return AgentVersion(text, _RHEV.get((major, minor), (major, minor)))
