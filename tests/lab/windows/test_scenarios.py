"""The scenario files: each of them can be played, and a mistake in one is found when it is read."""

import re

import pytest
from pydantic import ValidationError

from tests.lab.windows.scenario import SCENARIOS, Scenario, load, scenario_names
from tests.lab.windows.talk import Talk

pytestmark = pytest.mark.windows


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_can_be_frozen_and_thawed_and_ends_thawed(name: str) -> None:
    talk = Talk(name)
    assert talk.agent.scenario.title
    talk.send(b'{"execute":"guest-fsfreeze-freeze"}\n')
    talk.clock.sleep(1)
    talk.send(b'{"execute":"guest-fsfreeze-thaw"}\n')
    assert not talk.agent.says_frozen()
    assert not talk.agent.holds_writes()


def test_a_key_that_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError, match="freeze_delay"):
        load("healthy-2022", {"agent": {"freeze_delay": 3}})


@pytest.mark.parametrize(
    "changes",
    [{"freeze": []}, {"freeze": [{"fails": "somehow"}]}, {"system": {"name": "2003"}}, {"hold": {"limit_s": -1}}],
)
def test_a_value_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        load("healthy-2022", changes)


def test_changes_are_laid_over_the_tables_of_the_file() -> None:
    changed = load("healthy-2022", {"registry": {"vss_option": 1}})
    assert changed.registry.vss_option == 1
    assert changed.sql == load("healthy-2022").sql


def test_every_table_and_key_of_the_schema_is_in_the_readme() -> None:
    text = (SCENARIOS / "README.md").read_text()
    documented = set(re.findall(r"`\[*([a-z_]+)\]*`", text))
    schema = Scenario.model_json_schema()
    keys = {key for table in [schema, *schema["$defs"].values()] for key in table["properties"]}
    assert keys - documented == set()
