"""Which tests may run beside each other."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from tests.side_by_side import has_real_guests, pytest_collection_modifyitems, pytest_ignore_collect

TESTS = Path(__file__).parent


def test_a_file_with_real_guests_is_known_by_its_text() -> None:
    assert has_real_guests(TESTS / "live" / "test_main_job.py")


def an_item(file: Path, fixtures: Sequence[str] = (), markers: Sequence[str] = (), *, name: str = "a test") -> Any:
    return SimpleNamespace(name=name, path=file, fixturenames=fixtures, iter_markers=lambda of: (each for each in markers if each == of))


def test_a_file_without_guests_is_shared_out() -> None:
    assert not has_real_guests(TESTS / "model" / "test_verdict.py")


def test_the_tests_of_the_lab_itself_are_not_shared_out_as_they_have_real_guests_too() -> None:
    assert has_real_guests(TESTS / "lab" / "test_lab.py")


@pytest.mark.parametrize(("fixtures", "markers"), [(["lab"], []), ([], ["live"])])
def test_a_test_with_a_real_guest_whose_file_shows_no_sign_of_it_is_refused(
    tmp_path: Path, pytestconfig: pytest.Config, fixtures: list[str], markers: list[str]
) -> None:
    """Every run looks at every test that it has."""
    file = tmp_path / "test_something.py"
    file.write_text("def test_with_a_guest(): ...")
    with pytest.raises(pytest.UsageError):
        pytest_collection_modifyitems(pytestconfig, [an_item(file, fixtures, markers)])


@pytest.mark.parametrize(("guests", "left"), [("all", ["a guest", "no guest"]), ("only", ["a guest"]), ("without", ["no guest"])])
def test_a_run_has_the_tests_with_real_guests_or_the_others_or_all(guests: str, left: list[str]) -> None:
    config: Any = SimpleNamespace(getoption={"--guests": guests}.get, hook=Mock())
    items = [an_item(TESTS / "model" / "test_verdict.py", name="no guest"), an_item(TESTS / "lab" / "test_lab.py", name="a guest")]
    pytest_collection_modifyitems(config, items)
    assert [item.name for item in items] == left


@pytest.mark.parametrize(("guests", "left_out"), [("all", set()), ("only", {"test_verdict.py"}), ("without", {"test_lab.py"})])
def test_files_that_a_run_leaves_out_are_not_read_and_fixtures_always_are(guests: str, left_out: set[str]) -> None:
    config: Any = SimpleNamespace(getoption={"--guests": guests}.get)
    files = [TESTS / "model" / "test_verdict.py", TESTS / "lab" / "test_lab.py", TESTS / "live" / "conftest.py", TESTS / "live"]
    assert {file.name for file in files if pytest_ignore_collect(file, config)} == left_out
