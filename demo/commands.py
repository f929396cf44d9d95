"""The commands of Stillpoint: what is printed is what is run. Their bars and lines are shown as they come."""

import shlex
import subprocess
import sys

from demo.curl import Refused
from demo.screen import INDENT, Screen
from tests.service_process import ServiceProcess


class Commands:
    def __init__(self, screen: Screen, service: ServiceProcess) -> None:
        self._screen = screen
        self._environment = service.environment

    def run(self, *words: str) -> str:
        """What it printed on standard output, which the reader has seen. Raises Refused if it ends with an error."""
        self._screen.command(shlex.join(["stillpoint", *words]))
        line = [sys.executable, "-m", "service.cli", *words]
        # On a terminal the command draws its bars there. Elsewhere it prints lines, which are put below the command.
        errors = None if sys.stderr.isatty() else subprocess.STDOUT
        process = subprocess.Popen(line, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        said = []
        with process:
            assert process.stdout is not None
            for text in process.stdout:
                said.append(text)
                self._screen.line(INDENT + text.rstrip("\n"))
        if process.returncode != 0:
            raise Refused(f"stillpoint {words[0]} ended with {process.returncode}")
        return "".join(said)
