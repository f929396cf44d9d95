"""Settings files, read as systemd reads an EnvironmentFile, so that a file means the same in a unit and in a shell.

A file has lines of `NAME=value`. `#` or `;` at the start of a line begins a comment. Values may be in quotes. Nothing is expanded, so a
password may have `$` and `#` in it.
"""

import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLANK_OR_COMMENT = re.compile(r"[^\S\n]*(?:[#;](?:\\\n|[^\n])*)?(?:\n|\Z)")
_PLAIN = re.compile(r"(?:\\\n|\\.|[^\\\n])*", re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)


class SettingsFileUnusable(ValueError):
    """`path` cannot be used for `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read(path: Path) -> dict[str, str]:
    """Raises SettingsFileUnusable, and FileNotFoundError."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsFileUnusable(path, f"it cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsFileUnusable(path, "it is not UTF-8 text") from error
    return dict(_assignments(path, text))


def _assignments(path: Path, text: str) -> list[tuple[str, str]]:
    assignments, at = [], 0
    while at < len(text):
        blank = _BLANK_OR_COMMENT.match(text, at)
        if blank is not None and blank.end() > at:
            at = blank.end()
            continue
        line = text.count("\n", 0, at) + 1
        name, separator, _ = text[at:].partition("\n")[0].partition("=")
        if not separator or not _NAME.fullmatch(name.strip()):
            # The error does not quote the line: the line may hold a part of a password.
            raise SettingsFileUnusable(path, f"line {line} is not NAME=value (without `export`, and without spaces in the name)")
        value, at = _value(path, line, text, at + len(name) + 1)
        assignments.append((name.strip(), value))
    return assignments


def _value(path: Path, line: int, text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, and where the next line begins."""
    at = _after_spaces(text, at)
    parts = []
    while at < len(text) and text[at] in "'\"":
        quoted = (_SINGLE if text[at] == "'" else _DOUBLE).match(text, at)
        if quoted is None:
            raise SettingsFileUnusable(path, f"line {line} has a quote that does not end")
        parts.append(quoted[1] if text[at] == "'" else re.sub(r'\\(["\\`$])', r"\1", quoted[1].replace("\\\n", "")))
        at = _after_spaces(text, quoted.end())
    plain = _PLAIN.match(text, at)
    assert plain is not None
    parts.append(re.sub(r"\\(.)", r"\1", plain[0].replace("\\\n", "")).rstrip())
    return "".join(parts), plain.end() + 1


def _after_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
