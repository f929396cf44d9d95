"""Which tests may run beside each other."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from tests.side_by_side import has_real_guests, pytest_collection_modifyitems, pytest_ignore_collect

TESTS = Path(__file__).parent


def test_every_test_with_a_real_guest_stands_in_a_file_that_is_known_to_have_some() -> None:
    marked = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "live", "-p", "no:cacheprovider", str(TESTS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=TESTS.parent,
    )
    files = {line.partition("::")[0] for line in marked.stdout.splitlines() if "::" in line}
    assert TESTS / "live" / "test_main_job.py" in {TESTS.parent / file for file in files}
    assert [file for file in files if not has_real_guests(TESTS.parent / file)] == []


def test_a_file_without_guests_is_shared_out() -> None:
    assert not has_real_guests(TESTS / "model" / "test_verdict.py")


def test_the_tests_of_the_lab_itself_are_not_shared_out_as_they_have_real_guests_too() -> None:
    assert has_real_guests(TESTS / "lab" / "test_lab.py")


def test_a_test_with_a_real_guest_whose_file_shows_no_sign_of_it_is_refused(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    file = tmp_path / "test_something.py"
    file.write_text("def test_with_a_guest(lab): ...")
    items: list[Any] = [SimpleNamespace(path=file, fixturenames=["lab"])]
    with pytest.raises(pytest.UsageError):
        pytest_collection_modifyitems(pytestconfig, items)


@pytest.mark.parametrize(("guests", "left"), [("all", ["a guest", "no guest"]), ("only", ["a guest"]), ("without", ["no guest"])])
def test_a_run_has_the_tests_with_real_guests_or_the_others_or_all(guests: str, left: list[str]) -> None:
    config: Any = SimpleNamespace(getoption={"--guests": guests}.get, hook=Mock())
    items: list[Any] = [
        SimpleNamespace(name="no guest", path=TESTS / "model" / "test_verdict.py"),
        SimpleNamespace(name="a guest", path=TESTS / "lab" / "test_lab.py"),
    ]
    pytest_collection_modifyitems(config, items)
    assert [item.name for item in items] == left


@pytest.mark.parametrize(("guests", "left_out"), [("all", set()), ("only", {"test_verdict.py"}), ("without", {"test_lab.py"})])
def test_files_that_a_run_leaves_out_are_not_read_and_fixtures_always_are(guests: str, left_out: set[str]) -> None:
    config: Any = SimpleNamespace(getoption={"--guests": guests}.get)
    files = [TESTS / "model" / "test_verdict.py", TESTS / "lab" / "test_lab.py", TESTS / "live" / "conftest.py", TESTS / "live"]
    assert {file.name for file in files if pytest_ignore_collect(file, config)} == left_out
