"""`.ci/run` with a `make` that does what a test says: what went wrong in any of its parts is in its exit status and at its end."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
PARTS = ("demo", "chaos", "debian13", "check")
MAKE = """#!/bin/sh
echo "$*" >> made
echo "this is $1"
[ ! -e "$1.sh" ] || . "./$1.sh"
"""

Ci = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    """Plays all parts; by name what one does instead of passing. Returns the exit status and the lines."""
    for program, text in (("clone/.ci/run", SCRIPT.read_text()), ("bin/make", MAKE)):
        path = tmp_path / program
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)

    def play(**parts: str) -> tuple[int, list[str]]:
        for name, text in parts.items():
            (tmp_path / "clone" / f"{name}.sh").write_text(text)
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        run = subprocess.run([tmp_path / "clone" / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)
        return run.returncode, run.stdout.splitlines()

    return play


def made(tmp_path: Path) -> list[str]:
    return [line.split()[0] for line in (tmp_path / "clone" / "made").read_text().splitlines()]


def test_the_last_line_has_the_results_of_all_parts(ci: Ci) -> None:
    status, lines = ci()
    assert status == 0
    assert [line for line in lines if line.startswith("this is ")] == [f"this is {part}" for part in PARTS]
    assert [part.split(" (")[0] for part in lines[-1].split(", ")] == [f"{part} passed" for part in PARTS]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fails_is_the_status_and_the_others_run_all_the_same(ci: Ci, tmp_path: Path, part: str) -> None:
    status, lines = ci(**{part: "exit 7"})
    assert status == 7
    assert made(tmp_path) == list(PARTS)
    assert f"{part} failed with 7" in lines[-1]
    assert lines[-1].count("passed") == 3


def test_what_failed_on_debian_13_and_what_was_breached_stands_at_the_end(ci: Ci) -> None:
    failed = "FAILED tests/live/test_gates.py::test_a - AssertionError"
    breach = "  round 4, agent_killed, no job was created, in /tmp: guests_hurt: a write was held"
    chaos = f"echo '{breach}'; echo '    4   5.9 s     79 ms  agent_killed'; exit 1"
    _, lines = ci(debian13=f"echo '{failed}'; exit 1", chaos=chaos)
    end = lines[lines.index("this is check") + 1 :]
    assert failed in end
    assert breach in end
    assert not any("79 ms" in line for line in end)


def test_a_part_that_passes_is_not_repeated(ci: Ci) -> None:
    _, lines = ci(check="echo 'ERROR in the output of a test that passed'")
    assert sum(line.startswith("ERROR") for line in lines) == 1


def test_nothing_is_left(ci: Ci, tmp_path: Path) -> None:
    ci(demo="exit 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "clone"]
