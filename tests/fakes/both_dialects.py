"""Pytest plugin: a test that uses the fakes runs with libvirt 9.0 and with libvirt 11.3.

The second run is left out when the first came across nothing in which the two differ: it would be the same test.
"""

import sys
from collections.abc import Generator
from functools import cache
from types import ModuleType

import pytest

from tests.fakes.dialect import SPOKEN, Dialect

_FAKES = "tests.fakes"
# The libvirt of this machine speaks as it does. A fake beside it is told its dialect by the test.
_REAL = "tests.live."
_IS_THE_SAME = pytest.StashKey[set[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_real = metafunc.definition.get_closest_marker("live") is not None or metafunc.module.__name__.startswith(_REAL)
    if not is_real and _FAKES in _reached_from(metafunc.module.__name__):
        metafunc.parametrize("dialect", list(Dialect), ids=str, indirect=True)


@pytest.fixture(autouse=True)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """How libvirt words its errors in this test."""
    spoken: Dialect = getattr(request, "param", Dialect.libvirt_9_0)
    SPOKEN.begin(spoken)
    return spoken


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed and not SPOKEN.matters:
        item.session.stash.setdefault(_IS_THE_SAME, set()).add(_twin(item))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if _dialect_of(item) is not Dialect.libvirt_11_3 or _twin(item) not in item.session.stash.get(_IS_THE_SAME, set()):
        return None
    # The test before this one left what the two share, such as a module's fixtures. pytest has no public way to end that.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def _dialect_of(item: pytest.Item) -> Dialect | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("dialect") if callspec is not None else None


def _twin(item: pytest.Item) -> str:
    """The same for both runs of a test."""
    return item.nodeid.replace(Dialect.libvirt_11_3, Dialect.libvirt_9_0)


@cache
def _reached_from(name: str) -> frozenset[str]:
    """The test modules that a module uses, itself among them, at any depth."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in reached and module in sys.modules:
            reached.add(module)
            waiting += _used_by(sys.modules[module])
    return frozenset(reached)


def _used_by(module: ModuleType) -> list[str]:
    names = [value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) for value in vars(module).values()]
    packages = [name.rpartition(".")[0] for name in names if isinstance(name, str)]
    return [name for name in (*names, *packages) if isinstance(name, str) and name.startswith("tests.")]
