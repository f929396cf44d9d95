"""What the demo prints: aligned, wrapped, and coloured on a terminal only."""

import os
import shutil
import sys
import textwrap
from enum import StrEnum
from typing import TextIO

WIDEST = 110
INDENT = "   "


class Colour(StrEnum):
    bold = "1"
    dim = "2"
    red = "31"
    green = "32"
    yellow = "33"
    cyan = "36"


class Screen:
    """Prints to one stream, line by line as things happen."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ
        self.width = min(shutil.get_terminal_size((100, 40)).columns, WIDEST)
        self.has_blocks = (stream.encoding or "").lower().replace("-", "") == "utf8"

    def paint(self, text: str, colour: Colour) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def line(self, text: str = "") -> None:
        print(text, file=self._stream, flush=True)

    def title(self, text: str) -> None:
        self.line(self.paint(text, Colour.bold))
        self.line()

    def step(self, number: int, text: str) -> None:
        self.line()
        self.line(self.paint(f"{number}  {text}", Colour.bold))

    def command(self, text: str) -> None:
        """A line to be copied: never wrapped."""
        self.line(INDENT + self.paint(f"$ {text}", Colour.cyan))

    def note(self, text: str) -> None:
        for line in textwrap.wrap(text, self.width - len(INDENT)):
            self.line(INDENT + line)

    def fact(self, name: str, text: str, colour: Colour | None = None, name_width: int = 10) -> None:
        """A name and what is to be said of it, in two columns. The name is coloured."""
        first = f"{INDENT}{name:<{name_width}} "
        wrapped = textwrap.wrap(text, self.width - len(first)) or [""]
        shown = first.replace(name, self.paint(name, colour), 1) if colour else first
        self.line(shown + wrapped[0])
        for more in wrapped[1:]:
            self.line(" " * len(first) + more)
