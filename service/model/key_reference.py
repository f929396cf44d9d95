"""Which program a reference to a key starts, and whether the host allows that. The same rule at registration and at each use."""

import shlex
from collections.abc import Collection

from service.errors import KeyUnusable

FILE, COMMAND = "file:", "command:"


def words_of(reference: str) -> list[str]:
    """The program and its arguments, of a reference that begins with `command:`. Raises KeyUnusable."""
    try:
        words = shlex.split(reference.removeprefix(COMMAND))
    except ValueError as error:
        raise KeyUnusable(key=reference, reason=f"the command cannot be split into words: {error}") from error
    if not words:
        raise KeyUnusable(key=reference, reason="no program follows command:")
    return words


def check_program(reference: str, programs: Collection[str]) -> None:
    """`programs`: the absolute paths that STILLPOINT_KEY_COMMANDS names. Raises KeyUnusable."""
    if reference.startswith(COMMAND) and (program := words_of(reference)[0]) not in programs:
        raise KeyUnusable(key=reference, reason=f"STILLPOINT_KEY_COMMANDS of this host does not name {program}")
