"""`scripts/debian13-tests` with roots that do what a test says (tests/live runs in the real ones)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "debian13-tests"

DEBIAN13 = """#!/usr/bin/env bash
root=first
[ "${1-}" != --twin ] || { root=twin; shift; }
mkdir -p build/debian13/shared
[ "$#" -gt 0 ] || exit 0
echo "$*" > "$root.command"
echo "$$" > "$root.pid.new"
mv "$root.pid.new" "$root.pid"
. "./$root"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    write_program(tmp_path / "scripts" / "debian13", DEBIAN13)
    # Also where the tests do not run as root.
    write_program(tmp_path / "bin" / "id", "#!/bin/sh\necho 0\n")
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def start(clone: Path, *, first: str, twin: str, arguments: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    (clone / "first").write_text(first)
    (clone / "twin").write_text(twin)
    # A process that was started in the background ignores an interrupt, and a shell cannot change that for itself.
    return subprocess.Popen(
        ["env", "--default-signal=INT", clone / "scripts" / "debian13-tests", *arguments],
        env={**os.environ, "PATH": f"{clone / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(clone)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outcome(run: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = run.communicate(timeout=60)
    return run.returncode, output


def wait_for(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_ended(clone: Path, root: str) -> bool:
    """A zombie has ended too: who inherits it may take its time."""
    try:
        stat = Path(f"/proc/{(clone / f'{root}.pid').read_text().strip()}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_both_roots_share_the_same_tests(clone: Path) -> None:
    code, _ = outcome(start(clone, first="", twin="", arguments=("tests/live/test_one.py", "-x")))
    first, twin = ((clone / f"{root}.command").read_text().split() for root in ("first", "twin"))
    assert (code, first) == (0, twin)
    assert first[-2:] == ["tests/live/test_one.py", "-x"]


def test_pytest_understands_the_command_of_a_root_and_finds_the_tests_with_a_guest(clone: Path) -> None:
    outcome(start(clone, first="", twin=""))
    _python, *command = (clone / "first.command").read_text().split()
    (name,) = (argument.rpartition("/")[2] for argument in command if argument.startswith("--share=/mnt/"))
    (clone / name).mkdir()
    command = [argument.replace("/mnt/", f"{clone}/") for argument in command]

    collected = subprocess.run(
        [sys.executable, *command, "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=SCRIPT.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )

    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert "tests/live/test_main_job.py::" in collected.stdout


def test_the_roots_run_at_the_same_time(clone: Path) -> None:
    meet = 'touch "$root.came"; until [ -e first.came ] && [ -e twin.came ]; do sleep 0.01; done'
    code, _ = outcome(start(clone, first=meet, twin=meet))
    assert code == 0


@pytest.mark.parametrize(
    ("first", "twin", "code", "last"),
    [
        ("echo first is well", "echo twin is bad; exit 3", 3, "twin is bad"),
        ("echo first is bad; exit 4", "echo twin is well", 4, "first is bad"),
        ("echo first is bad; exit 4", "echo twin is bad; exit 3", 4, "first is bad"),
        ("echo first is well", "echo twin is well", 0, "twin is well"),
    ],
)
def test_a_failure_in_either_root_fails_the_whole_and_is_read_last(clone: Path, first: str, twin: str, code: int, last: str) -> None:
    found, output = outcome(start(clone, first=first, twin=twin))
    assert (found, output.splitlines()[-1]) == (code, last)
    assert {"first", "twin"} <= {line.split()[0] for line in output.splitlines() if line}


@pytest.mark.parametrize("root", ["first", "twin"])
def test_a_root_that_cannot_be_made_fails_the_whole(clone: Path, root: str) -> None:
    refusal = 'if [ "$root" = ROOT ]; then exit 7; fi'.replace("ROOT", root)
    write_program(clone / "scripts" / "debian13", DEBIAN13.replace("mkdir -p", f"{refusal}; mkdir -p"))
    code, _ = outcome(start(clone, first="", twin=""))
    assert (code, list(clone.glob("*.command"))) == (7, [])


@pytest.mark.parametrize("way", ["interrupt", "terminate", "kill"])
def test_both_roots_end_with_the_script_however_that_ends(clone: Path, way: str) -> None:
    # As `unshare` does in the real ones.
    stubborn = "trap '' TERM; exec sleep 1000"
    run = start(clone, first="exec sleep 1000" if way == "interrupt" else stubborn, twin=stubborn)
    wait_for(lambda: (clone / "first.pid").exists() and (clone / "twin.pid").exists())

    if way == "interrupt":  # by a terminal, which interrupts all that it runs
        os.killpg(run.pid, signal.SIGINT)
    else:
        run.send_signal(signal.SIGTERM if way == "terminate" else signal.SIGKILL)
    with run:
        try:
            code = run.wait(timeout=60)
        finally:
            run.kill()

    assert code == {"interrupt": 130, "terminate": -signal.SIGTERM, "kill": -signal.SIGKILL}[way]
    wait_for(lambda: has_ended(clone, "first") and has_ended(clone, "twin"))


def test_nothing_is_left_behind(clone: Path) -> None:
    outcome(start(clone, first="", twin=""))
    assert list((clone / "build" / "debian13" / "shared").iterdir()) == []
    assert list(clone.glob("tmp.*")) == []
