"""Starts `queue_client` processes and reads what they say."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class Client:
    def __init__(self, command: str, url: str, *rest: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.queue_client", command, url, *map(str, rest)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hears(self) -> dict[str, Any]:
        """The next thing it says; waits for it."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def rest(self) -> list[dict[str, Any]]:
        """Let it end, and all that it says until then."""
        said, _ = self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0
        return [json.loads(line) for line in said.splitlines()]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        # Not only waited for: its pipes are closed too.
        self._process.communicate()

    def clean_up(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def client(command: str, url: str, *rest: object) -> Iterator[Client]:
    """Whatever the test does, the process is gone after the block."""
    started = Client(command, url, *rest)
    try:
        yield started
    finally:
        started.clean_up()
