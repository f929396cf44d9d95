"""The hand with steps more, for tests of what a step may do. Started in place of the real program (`hand_start.PROGRAM`)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from service.errors import RepositoryFull
from service.repository import hand_process
from service.repository.report import Report
from service.repository.steps import STEPS

Arguments = dict[str, Any]


def echo(arguments: Arguments, report: Report) -> dict[str, Any]:
    return {**arguments, "pid": os.getpid(), "python": sys.executable}


def silent(arguments: Arguments, report: Report) -> dict[str, Any]:
    _say(arguments, os.getpid(), _program().pid)
    while True:
        signal.pause()


def stopped(arguments: Arguments, report: Report) -> dict[str, Any]:
    _say(arguments, os.getpid(), _program().pid)
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def killed(arguments: Arguments, report: Report) -> dict[str, Any]:
    if "times" in arguments:
        with Path(arguments["times"]).open("a") as times:
            times.write("x")
    _say(arguments, os.getpid(), _program().pid)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def ended(arguments: Arguments, report: Report) -> dict[str, Any]:
    print("the last words", file=sys.stderr)
    os._exit(7)


def working(arguments: Arguments, report: Report) -> dict[str, Any]:
    """Says something all the time, until the file is there."""
    _say(arguments, os.getpid(), _program().pid)
    done = 0
    while not Path(arguments["until"]).exists():
        done += 1
        report.progress(done)
        time.sleep(0.01)
    return {"done": done}


def paced(arguments: Arguments, report: Report) -> dict[str, Any]:
    began, total = time.monotonic(), arguments["pieces"] * arguments["bytes"]
    for piece in range(arguments["pieces"]):
        report.wait_for_pace(arguments["bytes"])
        report.progress((piece + 1) * arguments["bytes"], total)
    return {"took_s": time.monotonic() - began}


def full(arguments: Arguments, report: Report) -> dict[str, Any]:
    raise RepositoryFull(path=arguments["path"], needed_bytes=3, free_bytes=2)


def broken(arguments: Arguments, report: Report) -> dict[str, Any]:
    raise ZeroDivisionError("a fault of ours")


def refused(arguments: Arguments, report: Report) -> dict[str, Any]:
    raise OSError(arguments["errno"], os.strerror(arguments["errno"]), arguments["path"])


def prints(arguments: Arguments, report: Report) -> dict[str, Any]:
    print('{"result": {"from": "a stray print"}}', flush=True)
    subprocess.run(["echo", '{"result": {"from": "a program"}}'], check=True)
    return {"from": "result"}


def large(arguments: Arguments, report: Report) -> dict[str, Any]:
    return {"text": arguments["text"] * 2}


def key(arguments: Arguments, report: Report) -> dict[str, Any]:
    """What the step sees of the key, and a program that reads it as QEMU does."""
    descriptor = report.secret_file()
    program = subprocess.run(["cat", f"/dev/fd/{descriptor}"], capture_output=True, check=True, pass_fds=[descriptor])
    os.close(descriptor)
    seen = (report.key or b"").decode()
    return {"key": seen, "in_program": program.stdout.decode(), "pid": os.getpid()}


def merge_spoiled(arguments: Arguments, report: Report) -> dict[str, Any]:
    """The step `merge_disk` on a storage that keeps something else than what was written."""
    # Here, as libnbd is not where the tests run.
    from service.repository import joining

    real = joining._write

    def write(join: Any, copy: Any, *more: Any) -> int:
        written = real(join, copy, *more)
        with copy.path.open("r+b") as file:
            file.seek(-(1 << 20), os.SEEK_END)
            file.write(b"something else")
        return written

    vars(joining)["_write"] = write
    return joining.merge_disk(arguments, report)


def _program() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "1000"])


def _say(arguments: Arguments, *pids: int) -> None:
    """Tell the test which processes there are."""
    draft = Path(f"{arguments['pids']}.draft")
    draft.write_text(" ".join(map(str, pids)))
    draft.replace(arguments["pids"])


if __name__ == "__main__":
    more = (echo, silent, stopped, killed, ended, working, paced, full, broken, refused, prints, large, key, merge_spoiled)
    hand_process.main({**STEPS, **{step.__name__: step for step in more}})
