"""Pytest plugin: `--share FOLDER` lets several runs of the same tests share them out, each run on a machine of its own.

Each run takes the next file that no other run has taken: so the runs end at about the same time, and nobody has to know beforehand how
long a file takes. The folder is one that all runs see. It is empty at first, and belongs to one sharing out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", metavar="FOLDER", type=Path, help="share the tests with other runs that name the same folder, file by file")


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--share")
    if folder is None:
        return
    if not folder.is_dir():
        raise pytest.UsageError(f"--share {folder}: there is no such folder. Make an empty one that all runs see.")
    config.pluginmanager.register(SharedOut(config, folder))


class SharedOut:
    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config = config
        self._folder = folder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """As pytest's own, which tells each test the next one, so that what both need is kept: here that is the next of this run."""
        options = self._config.option
        if options.collectonly or (session.testsfailed and not options.continue_on_collection_errors):
            return None
        mine = self._mine(session.items)
        item = next(mine, None)
        while item is not None:
            following = next(mine, None)
            self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _mine(self, items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
        """The file whose tests may take longest comes first: what is left at the end is short."""
        files: dict[Path, list[pytest.Item]] = {}
        for item in items:
            files.setdefault(item.path, []).append(item)
        for file, tests in sorted(files.items(), key=lambda one: -sum(map(self._allowed_seconds, one[1]))):
            if self._take(file):
                yield from tests
            else:
                self._config.hook.pytest_deselected(items=tests)

    def _take(self, file: Path) -> bool:
        # Not as a file with tests, which a run would collect.
        name = "+".join(file.relative_to(self._config.rootpath).parts)
        try:
            (self._folder / f"{name}.taken").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _allowed_seconds(self, item: pytest.Item) -> int:
        marker = item.get_closest_marker("timeout")
        return int(marker.args[0] if marker is not None and marker.args else self._config.getini("timeout") or 0)
