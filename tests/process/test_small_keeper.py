"""The keeper of the thaw guards waits beside every worker and is forked for every window: it holds no more than it needs."""

import json
import subprocess
import sys

import pytest

NEVER = ("sqlalchemy", "pydantic", "fastapi", "structlog", "rich", "importlib.metadata", "service.db", "service.api", "service.config")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """What the keeper's program has imported when it begins to wait."""
    code = "import service.jobs.thaw_guard, json, sys; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout
    return set(json.loads(said))


@pytest.mark.parametrize("module", NEVER)
def test_the_keeper_does_without_what_only_the_service_needs(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_the_keeper_has_what_thaws(loaded: set[str]) -> None:
    assert {"libvirt", "service.jobs.freeze_window"} <= loaded
