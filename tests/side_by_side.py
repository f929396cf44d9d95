"""Pytest plugin: how the tests are shared out among several processes (`pytest -n 2`, which `make test` uses).

Tests with a real guest stay in one process, one after the other: they share a libvirt daemon, and some of them stop it. They come
first, as they take longest. The other tests are shared out file by file, so that a module's fixtures are made once.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_LIVE = "live"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    live = [item for item in items if item.get_closest_marker(_LIVE)]
    for item in live:
        item.add_marker(pytest.mark.xdist_group(_LIVE))
    items.sort(key=lambda item: item.get_closest_marker(_LIVE) is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return GuestsInOneProcess(config, log)


class GuestsInOneProcess(LoadScopeScheduling):
    """Shares out whole files, and all tests with a real guest as one."""

    def _split_scope(self, nodeid: str) -> str:
        # With --dist loadgroup xdist adds the group to the name of a test.
        return _LIVE if nodeid.endswith(f"@{_LIVE}") else nodeid.partition("::")[0]
