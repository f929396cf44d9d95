"""Pytest plugin: how the tests are shared out among several processes (`make test`, `pytest -n 2`).

Files with tests of real guests stay in one process, one after the other: the guests share a libvirt daemon, and some tests stop it. One
stops virtlogd, which writes down what all guests say: a guest that boots meanwhile is never heard.
These files come first, as they take longest. The other tests are shared out file by file, so that a module's fixtures are made once.

`--guests only` and `--guests without` choose between the two, for runs that go on at the same time (`scripts/tests`).
"""

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_SIGNS = ("pytest.mark.live", "from tests.lab.guests import", "from tests.lab.fixtures import")
_LAB = "lab"
"""The fixture that all guests need."""
_LIVE = "live"
"""The marker of tests with a real guest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    choices = ("all", "only", "without")
    parser.addoption("--guests", choices=choices, default="all", help="only the files with tests of real guests, or only the others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What a run leaves out it does not even read, unless it was named."""
    wanted = config.getoption("--guests")
    if wanted == "all" or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return True if has_real_guests(collection_path) != (wanted == "only") else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unknown = {item.path for item in items if _needs_a_guest(item) and not has_real_guests(item.path)}
    if unknown:
        raise pytest.UsageError(f"these files have tests with a real guest and no sign of it ({_SIGNS}): {sorted(map(str, unknown))}")
    items.sort(key=lambda item: not has_real_guests(item.path))
    wanted = config.getoption("--guests")
    if wanted != "all":
        with_guests, others = ([item for item in items if has_real_guests(item.path) is has] for has in (True, False))
        items[:], left_out = (with_guests, others) if wanted == "only" else (others, with_guests)
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return GuestsInOneProcess(config, log)


class GuestsInOneProcess(LoadScopeScheduling):
    """Shares out whole files, and all files with real guests as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "real guests" if has_real_guests(self.config.rootpath / file) else file


def _needs_a_guest(item: pytest.Item) -> bool:
    return _LAB in getattr(item, "fixturenames", ()) or any(item.iter_markers(_LIVE))


@cache
def has_real_guests(file: Path) -> bool:
    """By the text of the file: the process that shares out collects no tests, and so sees no markers."""
    text = file.read_text()
    return any(sign in text for sign in _SIGNS)
