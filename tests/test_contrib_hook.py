"""contrib/fsfreeze-hook, run with scripts that note their calls: failures reach its exit status, and nothing stays quiesced."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from service.freeze.survey import HOOK_DECLARATION, hook_state
from service.model.verdict import HookState

HOOK = Path(__file__).parents[1] / "contrib" / "fsfreeze-hook"


class Guest:
    """An /etc/qemu of its own."""

    def __init__(self, folder: Path) -> None:
        self.hook = folder / "fsfreeze-hook"
        self.log = folder / "hook.log"
        self._scripts = folder / "fsfreeze-hook.d"
        self._calls = folder / "calls"
        self._scripts.mkdir()
        shutil.copy(HOOK, self.hook)

    def add(self, name: str, *, fails_on: str = "nothing", status: int = 1, mode: int = 0o755) -> None:
        script = self._scripts / name
        script.write_text(f'#!/bin/sh\necho "{name} $1" >> {self._calls}\necho "{name} speaks"\n[ "$1" != {fails_on} ] || exit {status}\n')
        script.chmod(mode)

    def run(self, *arguments: str, log: str | None = None) -> int:
        environment = {**os.environ, "FSFREEZE_HOOK_LOG": log or str(self.log)}
        done = subprocess.run(["/bin/sh", self.hook, *arguments], env=environment, capture_output=True, check=False, timeout=20)
        assert (done.stdout, done.stderr) == (b"", b"")
        return done.returncode

    def calls(self) -> list[str]:
        """Since the last time."""
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return found


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def test_scripts_are_frozen_in_order_and_thawed_in_reverse(guest: Guest) -> None:
    guest.add("10-database")
    guest.add("20-mail queue")

    assert guest.run("freeze") == 0
    assert guest.calls() == ["10-database freeze", "20-mail queue freeze"]
    assert guest.run("thaw") == 0
    assert guest.calls() == ["20-mail queue thaw", "10-database thaw"]
    assert "20-mail queue thaw: 0" in guest.log.read_text()
    assert "10-database speaks" in guest.log.read_text()


def test_a_script_that_cannot_freeze_fails_the_freeze_and_whatever_ran_is_thawed(guest: Guest) -> None:
    guest.add("10-database")
    guest.add("20-queue", fails_on="freeze", status=7)
    guest.add("30-cache")

    assert guest.run("freeze") == 7
    assert guest.calls() == ["10-database freeze", "20-queue freeze", "20-queue thaw", "10-database thaw"]


def test_a_failed_freeze_stays_failed_when_its_thaw_fails_too(guest: Guest) -> None:
    guest.add("10-database", fails_on="thaw", status=5)
    guest.add("20-queue", fails_on="freeze", status=7)

    assert guest.run("freeze") == 7
    assert guest.calls()[-1] == "10-database thaw"


def test_every_script_is_thawed_even_when_one_fails_and_the_failure_is_passed_on(guest: Guest) -> None:
    guest.add("10-database")
    guest.add("20-queue", fails_on="thaw", status=3)

    assert guest.run("thaw") == 3
    assert guest.calls() == ["20-queue thaw", "10-database thaw"]


def test_what_is_not_a_script_is_left_alone(guest: Guest) -> None:
    guest.add("10-database~")
    guest.add("20-old.dpkg-old")
    guest.add("README", mode=0o644)

    assert guest.run("freeze") == 0
    assert guest.calls() == []


def test_it_freezes_without_scripts_and_without_a_log(guest: Guest) -> None:
    assert guest.run("freeze", log="/nonexistent/hook.log") == 0
    guest.add("10-database", fails_on="freeze")
    assert guest.run("freeze", log="/nonexistent/hook.log") == 1


@pytest.mark.parametrize("arguments", [(), ("status",)])
def test_any_other_call_is_refused(guest: Guest, arguments: tuple[str, ...]) -> None:
    guest.add("10-database")

    assert guest.run(*arguments) == 2
    assert guest.calls() == []


def test_stillpoint_believes_it_as_soon_as_there_is_a_script() -> None:
    text = HOOK.read_text()

    assert f"# {HOOK_DECLARATION}" in text.splitlines()
    assert hook_state(text, has_scripts=True) is HookState.truthful
    assert hook_state(text, has_scripts=False) is HookState.absent
