"""How several runs, each on a machine of its own, share out the tests (`--share FOLDER`)."""

import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[1]
PLUGIN = ["-m", "pytest", "-p", "tests.shared_out", "-p", "no:cacheprovider", "-c", "/dev/null"]

ANY = """
import os, pytest
from pathlib import Path

@pytest.fixture(scope="module", autouse=True)
def whole_file():
    begun = Path(__file__).with_suffix(".begun")
    begun.touch(exist_ok=False)
    yield
    begun.with_suffix(".ended").touch(exist_ok=False)

@pytest.mark.parametrize("number", range(3))
def test_of_any_file(number):
    with Path("ran").open("a") as ran:
        ran.write(f"{Path(__file__).name} {number} {os.getpid()}\\n")
"""

FOLDER = """
import pytest
from pathlib import Path

@pytest.fixture(scope="package", autouse=True)
def whole_folder():
    with Path("folders").open("a") as folders:
        print(Path(__file__).parent.name, "begun", file=folders, flush=True)
        yield
        print(Path(__file__).parent.name, "ended", file=folders)
"""

MEETING = """
import time
from pathlib import Path

def test_that_waits_for_the_other_file():
    Path(__file__).with_suffix(".came").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("*.came"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)

def test_before_which_a_run_takes_its_next_file():
    pass
"""


def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *PLUGIN, f"--rootdir={folder}", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(CLONE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def runs_that_share(folder: Path) -> list[tuple[int, str]]:
    (folder / "share").mkdir()
    runs = [run(folder, "--share=share") for _ in range(2)]
    outputs = [each.communicate(timeout=100)[0] for each in runs]
    return [(each.returncode, output) for each, output in zip(runs, outputs, strict=True)]


def assert_both_pass(folder: Path) -> None:
    for code, output in runs_that_share(folder):
        assert code == 0, output


def test_every_test_runs_once_and_a_file_stays_in_one_run(tmp_path: Path) -> None:
    files = [f"test_{number}.py" for number in range(12)]
    for file in files:
        (tmp_path / file).write_text(ANY)

    assert_both_pass(tmp_path)

    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert sorted((file, number) for file, number, _ in ran) == sorted((file, str(number)) for file in files for number in range(3))
    assert len({(file, pid) for file, _, pid in ran}) == len(files)
    assert len(list(tmp_path.glob("*.ended"))) == len(files)


def test_both_runs_take_files(tmp_path: Path) -> None:
    """Each file waits until the other has begun: one run alone would not get beyond the first."""
    for file in ("test_1.py", "test_2.py"):
        (tmp_path / file).write_text(MEETING)
    assert_both_pass(tmp_path)


def test_a_run_that_comes_too_late_has_nothing_to_do_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_1.py").write_text(ANY)
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "test_1.py.taken").touch()

    late = run(tmp_path, "--share=share")
    output, _ = late.communicate(timeout=100)

    assert (late.returncode, (tmp_path / "ran").exists()) == (0, False)
    assert "3 deselected" in output


def test_what_a_file_needs_is_ended_before_a_file_of_another_folder_begins(tmp_path: Path) -> None:
    """Another run took the file between them."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
        (tmp_path / folder / "conftest.py").write_text(FOLDER)
    for file in ("a/test_1.py", "a/test_2.py", "b/test_3.py"):
        (tmp_path / file).write_text("def test_of_a_folder(): pass")
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "a+test_2.py.taken").touch()

    one = run(tmp_path, "--share=share")
    output, _ = one.communicate(timeout=100)

    assert one.returncode == 0, output
    assert (tmp_path / "folders").read_text().split() == ["a", "begun", "a", "ended", "b", "begun", "b", "ended"]


def test_only_the_run_that_had_the_test_fails_by_it(tmp_path: Path) -> None:
    (tmp_path / "test_1.py").write_text("def test_that_fails(): assert False")
    assert sorted(code for code, _ in runs_that_share(tmp_path)) == [0, 1]


def test_the_file_whose_tests_may_take_longest_comes_first(tmp_path: Path) -> None:
    (tmp_path / "test_1.py").write_text(ANY)
    (tmp_path / "test_2.py").write_text("import pytest\npytestmark = pytest.mark.timeout(100)\n" + ANY)
    (tmp_path / "share").mkdir()

    alone = run(tmp_path, "--share=share", "-o", "timeout=10")
    output, _ = alone.communicate(timeout=100)

    assert alone.returncode == 0, output
    assert [line.split()[0] for line in (tmp_path / "ran").read_text().splitlines()] == ["test_2.py"] * 3 + ["test_1.py"] * 3


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_what_is_not_a_folder_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "share").touch()
    refused = run(tmp_path, "--share=share")
    output, _ = refused.communicate(timeout=100)
    assert (refused.returncode, "--share share" in output) == (pytest.ExitCode.USAGE_ERROR, True)
