"""The API asked with curl: what is printed is what is run."""

import json
import os
import subprocess
from typing import Any

from demo.screen import Screen


class Refused(Exception):
    """The API answered with a problem, or nobody answered. The text is for the reader."""

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


class Curl:
    """Shell lines that build on each other: `set` gives a variable its value, `ask` may use it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._variables: dict[str, str] = {}

    def set(self, name: str, value: str) -> None:
        """Prints and runs NAME=value; the value may be any expression of the shell."""
        self._screen.command(f"{name}={value}")
        self._variables[name] = self._run(f'{name}={value}; printf %s "${name}"')

    def ask(self, words: str, *, printed: bool = True) -> dict[str, Any]:
        """Raises Refused. `printed` False: a line that the reader has seen is repeated."""
        line = f'curl -sS -H "Authorization: Bearer $TOKEN" {words}'
        if printed:
            self._screen.command(line)
        document: dict[str, Any] = json.loads(self._run(line))
        if {"status", "code", "detail"} <= document.keys():
            raise Refused(f"{document['status']} {document['code']}: {document['detail']} {document.get('remedy', '')}", document["code"])
        return document

    def _run(self, line: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            env={**os.environ, **self._variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(f"{line} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout
