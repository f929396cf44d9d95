"""`scripts/tests` with a pytest that does what a test says: which runs there are, and what becomes of them."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.test_debian13_tests import has_ended, outcome, wait_for, write_program

SCRIPT = Path(__file__).parents[1] / "scripts" / "tests"

APART = """#!/usr/bin/env bash
[ ! -e apart.refused ] || { echo no root of its own >&2; exit 1; }
export APART=1
exec "$@"
"""

PYTEST = """#!/usr/bin/env bash
case "${APART-} $*" in
    1*) name=apart ;;
    *--guests=only*) name=here ;;
    *) name=without ;;
esac
echo "$*" > "$name.command"
echo "$$" > "$name.pid.new"
mv "$name.pid.new" "$name.pid"
[ ! -e "$name.sh" ] || . "./$name.sh"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    write_program(tmp_path / "scripts" / "apart", APART)
    write_program(tmp_path / ".venv" / "bin" / "python", PYTEST)
    set_cores(tmp_path, 4)
    return tmp_path


def start(clone: Path, *arguments: str, **runs: str) -> subprocess.Popen[str]:
    for name, text in runs.items():
        (clone / f"{name}.sh").write_text(text)
    return subprocess.Popen(
        [clone / "scripts" / "tests", *arguments],
        env={**os.environ, "TMPDIR": str(clone), "PATH": f"{clone / 'bin'}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def set_cores(clone: Path, cores: int) -> None:
    (clone / "bin").mkdir(exist_ok=True)
    write_program(clone / "bin" / "nproc", f"#!/bin/sh\necho {cores}\n")


def runs(clone: Path) -> set[str]:
    return {file.stem for file in clone.glob("*.command")}


def words(clone: Path, run: str) -> list[str]:
    return (clone / f"{run}.command").read_text().split()


def test_two_runs_share_the_real_guests_and_a_third_has_the_other_tests(clone: Path) -> None:
    code, _ = outcome(start(clone))
    assert (code, runs(clone)) == (0, {"here", "apart", "without"})
    (here,), (apart,) = ([word for word in words(clone, run) if word.startswith("--share=")] for run in ("here", "apart"))
    assert here == apart
    assert "--guests=only" in words(clone, "here")
    assert "--guests=only" in words(clone, "apart")


@pytest.mark.parametrize(("guests", "expected"), [((), {"here", "without"}), (("only",), {"here"}), (("without",), {"without"})])
def test_with_fewer_than_four_cores_one_run_has_all_real_guests(clone: Path, guests: tuple[str, ...], expected: set[str]) -> None:
    set_cores(clone, 3)
    code, _ = outcome(start(clone, *guests))
    assert (code, runs(clone)) == (0, expected)
    if "here" in expected:
        assert not [word for word in words(clone, "here") if word.startswith("--share=")]


def test_the_tests_without_a_guest_give_way_to_the_others(clone: Path) -> None:
    outcome(start(clone, here="nice > here.nice", without="nice > without.nice"))
    here, without = (int((clone / f"{run}.nice").read_text()) for run in ("here", "without"))
    assert without > here


@pytest.mark.parametrize(("guests", "expected"), [("only", {"here", "apart"}), ("without", {"without"})])
def test_either_kind_can_be_asked_for_alone(clone: Path, guests: str, expected: set[str]) -> None:
    code, _ = outcome(start(clone, guests))
    assert (code, runs(clone)) == (0, expected)


def test_the_runs_go_on_at_the_same_time(clone: Path) -> None:
    meet = 'touch "$name.came"; until [ -e here.came ] && [ -e apart.came ] && [ -e without.came ]; do sleep 0.01; done'
    code, _ = outcome(start(clone, here=meet, apart=meet, without=meet))
    assert code == 0


def test_where_nothing_can_run_apart_one_run_has_all_real_guests_and_the_reason_is_said(clone: Path) -> None:
    (clone / "apart.refused").touch()
    code, output = outcome(start(clone, here="exit 5"))
    assert (code, runs(clone)) == (5, {"here", "without"})
    assert "no root of its own" in output


@pytest.mark.parametrize("run", ["here", "apart", "without"])
def test_a_failure_in_any_run_fails_the_whole_and_is_read_last(clone: Path, run: str) -> None:
    code, output = outcome(start(clone, **{run: "echo this is bad; exit 4"}))
    assert (code, output.splitlines()[-1]) == (4, "this is bad")


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_all_runs_end_with_the_script_however_that_ends(clone: Path, way: signal.Signals) -> None:
    stubborn = "trap '' TERM; exec sleep 1000"
    script = start(clone, here=stubborn, apart=stubborn, without=stubborn)
    wait_for(lambda: all((clone / f"{run}.pid").exists() for run in ("here", "apart", "without")))
    script.send_signal(way)
    with script:
        try:
            script.wait(timeout=60)
        finally:
            script.kill()
    wait_for(lambda: all(has_ended(clone, run) for run in ("here", "apart", "without")))


def test_nothing_is_left_behind(clone: Path) -> None:
    outcome(start(clone))
    assert list((clone / "build" / "shared").iterdir()) == []
    assert list(clone.glob("tmp.*")) == []
