"""The page about policies: its example is applied as it stands there, and its table of traps is what YAML does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from service.config import Settings
from service.db.engine import Database
from service.policy_files import read_files
from service.records.wake import Wake
from tests.api.conftest import client_of
from tests.api.policies import POLICIES, add_copies, add_repository
from tests.api.world import add_domain

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def api(sqlite_database: Database, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(sqlite_database, Settings(state_dir=tmp_path, host_id="hv1"), Wake()) as client:
        with sqlite_database.write() as session:
            add_repository(session, "nas")
            add_domain(session, "db-1")
        add_copies(client, "nas", "offsite")
        yield client


def test_the_example_is_applied_and_covers_every_domain(api: TestClient, tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(EXAMPLE)
    documents = [each.policy.as_document() for each in read_files([str(tmp_path)])]
    api.put("/api/v1/domains/db-1/labels", json={"labels": {"tier": "gold"}})
    applied = api.post(f"{POLICIES}/apply", json={"policies": [{"document": document} for document in documents]})
    assert [policy["change"] for policy in applied.json()["policies"]] == ["created", "created"]
    assert [api.get(f"{POLICIES}/{policy['name']}").json()["document"] for policy in documents] == documents
    had = {name: [domain["name"] for domain in api.get(f"{POLICIES}/{name}/domains").json()["items"]] for name in ("production", "rest")}
    assert had == {"production": ["db-1"], "rest": ["db1"]}
    runs = api.post(f"{POLICIES}/production/preview").json()["runs"]
    # A night in the blackout waits for its end.
    assert ({run["track"] for run in runs["items"]}, runs["by_outcome"]["queued"]) == ({"nightly", "lunch"}, runs["count"])


@pytest.mark.parametrize(("written", "instead"), re.findall(r"^\| `([^`]+: [^`]+)` \| [^|]+ \| `([^`]+)` \|$", PAGE, re.MULTILINE))
def test_every_trap_of_yaml_is_one_and_has_a_way_around(written: str, instead: str) -> None:
    try:
        trapped = yaml.safe_load(written)
    except yaml.YAMLError:
        trapped = None
    assert trapped != yaml.safe_load(instead)


def test_there_are_traps() -> None:
    assert len(re.findall(r"^\| `[^`]+: [^`]+` \| [^|]+ \| `[^`]+` \|$", PAGE, re.MULTILINE)) == 5
