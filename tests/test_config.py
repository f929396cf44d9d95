"""The rules for VSS writers: read from one line of JSON, and refused when they would not do what was meant."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.app import writer_rules
from service.config import SETTINGS_FILE_VARIABLE, Settings, load_settings
from service.db.engine import Database
from service.errors import SettingInvalid
from service.model.windows.well_known_writers import SQL_SERVER, WriterEffect
from tests.scenes.windows import WindowsScene, reasons_of

EXCHANGE = "76FE1AC4-15F7-4BCD-987E-8E1ACB462FB7"


def test_rules_come_from_the_environment_in_any_case_with_or_without_braces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLPOINT_WRITER_RULES", json.dumps({SQL_SERVER: "warns", f"{{{EXCHANGE}}}": "ignored"}))
    rules = writer_rules(load_settings())
    assert rules.overrides == {SQL_SERVER: WriterEffect.warns, EXCHANGE.lower(): WriterEffect.ignored}


def test_rules_come_from_the_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stillpoint.env"
    file.write_text(f"STILLPOINT_WRITER_RULES={json.dumps({SQL_SERVER: 'ignored'})}\n")
    monkeypatch.setenv(SETTINGS_FILE_VARIABLE, str(file))
    assert writer_rules(load_settings()).overrides == {SQL_SERVER: WriterEffect.ignored}


@pytest.mark.parametrize("value", ["", "{}"])
def test_no_rules_leave_the_table_as_it_is(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STILLPOINT_WRITER_RULES", value)
    assert writer_rules(load_settings()).overrides == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("warns", "JSON"),
        ('["warns"]', "JSON object"),
        ('{"SqlServerWriter": "warns"}', "sqlserverwriter"),
    ],
)
def test_rules_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, value: str, reason: str) -> None:
    monkeypatch.setenv("STILLPOINT_WRITER_RULES", value)
    with pytest.raises(ValidationError, match=reason):
        load_settings()


@pytest.mark.parametrize("effect", ["warn", "", 1, None])
def test_an_effect_that_is_none_is_refused_with_those_that_are(effect: object) -> None:
    settings = Settings.model_validate({"writer_rules": {SQL_SERVER: effect}})
    with pytest.raises(SettingInvalid, match="lowers, warns, ignored"):
        writer_rules(settings)


@pytest.mark.windows
@pytest.mark.parametrize(("effect", "verdict"), [("lowers", "filesystem"), ("warns", "application"), ("ignored", "application")])
def test_the_rules_reach_the_verdict(sqlite_database: Database, tmp_path: Path, effect: str, verdict: str) -> None:
    scene = WindowsScene(sqlite_database, tmp_path, writer_rules={SQL_SERVER: effect})
    scene.play("sql-writer-failed")
    job = scene.take()
    assert (job.verdict, "writer_ignored" in reasons_of(job)) == (verdict, effect == "ignored")


@pytest.mark.windows
def test_writers_that_do_not_settle_are_waited_for_as_long_as_is_set(sqlite_database: Database, tmp_path: Path) -> None:
    scene = WindowsScene(sqlite_database, tmp_path, writers_settle_seconds=0)
    scene.play("writers-never-settle")
    assert "writers_not_settled" in reasons_of(scene.take())
