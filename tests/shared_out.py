"""Pytest plugin: `--share FOLDER` lets several runs of the same tests share them out, each run on a machine of its own.

Each run takes the next file that no other run has taken: so the runs end at about the same time, and nobody has to know beforehand how
long a file takes. The folder is one that all runs see. It is empty at first, and belongs to one sharing out.
"""

from collections import Counter
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
        self._is_mine: dict[Path, bool] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """The file whose tests may take longest comes first: what is left at the end is short."""
        weights: Counter[Path] = Counter()
        for item in items:
            weights[item.path] += self._allowed_seconds(item)
        items.sort(key=lambda item: -weights[item.path])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """True: nothing is left to do for this test here."""
        if item.path not in self._is_mine:
            self._is_mine[item.path] = self._take(item.path)
        if self._is_mine[item.path]:
            return None
        self._config.hook.pytest_deselected(items=[item])
        return True

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
