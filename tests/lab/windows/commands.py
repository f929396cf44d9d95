"""The commands that agents know, since when, and which of them work on Windows."""

from dataclasses import dataclass

WHILE_FROZEN = frozenset({"guest-ping", "guest-info", "guest-sync", "guest-sync-delimited", "guest-fsfreeze-status", "guest-fsfreeze-thaw"})
FREEZE_COMMANDS = frozenset({"guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw"})


@dataclass(frozen=True)
class Command:
    name: str
    since: tuple[int, int] = (0, 15)
    on_windows: bool = True
    answers_success: bool = True


COMMANDS = (
    Command("guest-ping"),
    Command("guest-info"),
    Command("guest-sync"),
    Command("guest-sync-delimited", (1, 1)),
    Command("guest-get-time", (1, 5)),
    Command("guest-set-time", (1, 5)),
    Command("guest-file-open"),
    Command("guest-file-close"),
    Command("guest-file-read"),
    Command("guest-file-write"),
    Command("guest-file-seek"),
    Command("guest-file-flush"),
    Command("guest-fsfreeze-status"),
    Command("guest-fsfreeze-freeze"),
    Command("guest-fsfreeze-freeze-list", (2, 2)),
    Command("guest-fsfreeze-thaw"),
    Command("guest-fstrim", (1, 2)),
    Command("guest-shutdown", answers_success=False),
    Command("guest-suspend-disk", (1, 1), answers_success=False),
    Command("guest-suspend-ram", (1, 1), answers_success=False),
    Command("guest-suspend-hybrid", (1, 1), on_windows=False, answers_success=False),
    Command("guest-network-get-interfaces", (1, 1)),
    Command("guest-get-vcpus", (1, 5)),
    Command("guest-set-vcpus", (1, 5), on_windows=False),
    Command("guest-get-fsinfo", (2, 2)),
    Command("guest-get-memory-blocks", (2, 3), on_windows=False),
    Command("guest-set-memory-blocks", (2, 3), on_windows=False),
    Command("guest-get-memory-block-info", (2, 3), on_windows=False),
    Command("guest-exec", (2, 5)),
    Command("guest-exec-status", (2, 5)),
    Command("guest-get-host-name", (2, 10)),
    Command("guest-get-users", (2, 10)),
    Command("guest-get-timezone", (2, 10)),
    Command("guest-get-osinfo", (2, 10)),
    Command("guest-get-devices", (5, 2)),
    Command("guest-get-disks", (5, 2)),
    Command("guest-ssh-get-authorized-keys", (5, 2)),
)
_BY_NAME = {command.name: command for command in COMMANDS}


def known(name: str, generation: tuple[int, int]) -> Command | None:
    """None: an agent of that time has never heard of it."""
    command = _BY_NAME.get(name)
    return command if command is not None and generation >= command.since else None


def supported_commands(generation: tuple[int, int], is_enabled: dict[str, bool], *, unsupported_too: bool) -> list[dict[str, object]]:
    """The list of guest-info; `is_enabled` is asked for what exists on Windows."""
    listed = [command for command in COMMANDS if generation >= command.since and (command.on_windows or unsupported_too)]
    return [
        {"enabled": is_enabled.get(command.name, False), "name": command.name, "success-response": command.answers_success}
        for command in listed
    ]
