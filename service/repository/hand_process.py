"""The hand: a process that does the steps of backups and restores in one repository, one after the other.

A program, which the worker starts and does not import: `python -P -m service.repository.hand_process [FD OF THE KEY]`. It runs with the
system's Python, as Debian's libnbd is a module of it: imported are the standard library, libnbd, and modules of the service that
need nothing else. It hears lines of JSON on standard input: `{"step", "arguments"}` and `{"pace": bytes a second or null}`.
It says `{"ready": true}` when it runs, `{"begun": true}` before a step, then `{"done", "total"}`, `{"alive": true}`, `{"waiting": true}`,
and at the end of a step `{"result"}` or `{"error": code, "facts"}`. A step without `begun` has done nothing: another process may do it.
When its standard input ends, because the worker is gone, it kills its process group: itself and every program that it started.
"""

import json
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from service import bounded_io
from service.errors import RepositoryUnusable, StillpointError
from service.repository import failures
from service.repository.report import Report
from service.repository.steps import STEPS, WHY_MISSING, Step

OOM_SCORE = "500"
"""When memory is short, the kernel ends this process rather than a guest or the worker."""
READ_BYTES = 1 << 20
"""The most that one read takes from the worker. The rest comes with the next one."""


def main(steps: Mapping[str, Step] = STEPS) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The worker ends it. A signal to the whole unit would end it before the worker has ended its jobs.
        signal.signal(ignored, signal.SIG_IGN)
    # No core file may hold the key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    os.umask(0o077)
    incoming, voice = _own_ends()
    voice.say({"ready": True})
    report = Report(voice.say, key=_key())
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(incoming, report, requests), daemon=True).start()
    while True:
        request = requests.get()
        voice.say({"begun": True})
        voice.say(_done(steps, request["step"], request["arguments"], report))


def _own_ends() -> tuple[int, "_Voice"]:
    """The two ends of the conversation, where no program and no stray `print` finds them."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, _Voice(outgoing)


class _Voice:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, line: Mapping[str, Any]) -> None:
        text = memoryview(json.dumps(line, default=str).encode() + b"\n")
        with self._lock:
            while text:
                try:
                    text = text[os.write(self._descriptor, text) :]
                except OSError:
                    _end()


def _key() -> bytes | None:
    if len(sys.argv) < 2:
        return None
    with open(int(sys.argv[1]), "rb") as file:  # noqa: PTH123 - of a descriptor
        return file.read()


def _listen(incoming: int, report: Report, requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """In a thread of its own: a new pace must reach a step that works, and the death of the worker a step that hangs."""
    pieces = b""
    while True:
        piece = os.read(incoming, READ_BYTES)
        if not piece:
            _end()
        *lines, pieces = (pieces + piece).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "step" in message:
                requests.put(message)
            else:
                report.set_pace(message["pace"])


def _end() -> NoReturn:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _done(steps: Mapping[str, Step], step: str, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    path = str(arguments.get("path"))
    if step not in steps:
        return _as_line(RepositoryUnusable(path=bounded_io.printable(path), step=step, reason=f"no such step: {WHY_MISSING}"))
    try:
        return {"result": steps[step](arguments, report)}
    except StillpointError as error:
        return _as_line(error)
    except OSError as error:
        traceback.print_exc()
        return _as_line(failures.of_repository(error, error.filename if error.filename is not None else path, step))
    except Exception as error:  # noqa: BLE001 - the edge of the process: the worker gets an error, and the next step is done
        traceback.print_exc()
        return _as_line(RepositoryUnusable(path=bounded_io.printable(path), step=step, reason=f"{type(error).__name__}: {error}"))


def _as_line(error: StillpointError) -> dict[str, Any]:
    return {"error": error.code, "facts": dict(error.facts)}


if __name__ == "__main__":
    main()
