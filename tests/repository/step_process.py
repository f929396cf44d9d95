"""Runs one step of the hand in a process of its own, with the Python that the hand has: what a step imports must be there."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import service.errors
from service.errors import StillpointError

ROOT = Path(__file__).parents[2]
#: Reads what to do, and writes the result. The lines of progress come first.
_PROGRAM = """
import json, sys
from service.errors import StillpointError
from service.repository.report import Report
from service.repository.steps import STEPS
asked = json.load(sys.stdin)
report = Report(lambda line: print(json.dumps(line), flush=True), key=bytes.fromhex(asked["key"]) if asked["key"] else None)
report.set_pace(asked["pace"])
try:
    print(json.dumps({"result": STEPS[asked["step"]](asked["arguments"], report)}))
except StillpointError as error:
    print(json.dumps({"error": error.code, "facts": dict(error.facts)}, default=str))
"""
_ERRORS = {kind.code: kind for kind in vars(service.errors).values() if isinstance(kind, type) and issubclass(kind, StillpointError)}


def run_step(step: str, arguments: Mapping[str, Any], *, key: bytes | None = None) -> dict[str, Any]:
    """Raises the error of the step."""
    process = start_step(step, arguments, key=key)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return result_of(output)


def start_step(step: str, arguments: Mapping[str, Any], *, key: bytes | None = None, pace: int | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        ["/usr/bin/python3", "-P", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"step": step, "arguments": arguments, "key": key.hex() if key else None, "pace": pace}))
    process.stdin.close()
    process.stdin = None
    return process


def result_of(output: str) -> dict[str, Any]:
    last = json.loads(output.splitlines()[-1])
    if "error" in last:
        raise _ERRORS[last["error"]](**last["facts"])
    return dict(last["result"])


def progress_of(output: str) -> list[tuple[int, int]]:
    """Done and total bytes of each line of progress."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [(line["done"], line["total"]) for line in lines if "done" in line]
