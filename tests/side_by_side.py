"""Pytest plugin: how the tests are shared out among several processes (`make test`, `pytest -n 2`).

Files with tests of real guests stay in one process, one after the other: the guests share a libvirt daemon, and some tests stop it.
These files come first, as they take longest. The other tests are shared out file by file, so that a module's fixtures are made once.
"""

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_MARKER = "pytest.mark.live"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not has_real_guests(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return GuestsInOneProcess(config, log)


class GuestsInOneProcess(LoadScopeScheduling):
    """Shares out whole files, and all files with real guests as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "real guests" if has_real_guests(self.config.rootpath / file) else file


@cache
def has_real_guests(file: Path) -> bool:
    """By the text of the file: the process that shares out collects no tests, and so sees no markers."""
    return _MARKER in file.read_text()
