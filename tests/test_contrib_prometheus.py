"""contrib/prometheus: the alarms are ones that can come."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service import metrics
from service.app import create_api
from service.config import Settings
from service.db import tokens
from service.db.engine import Database
from service.records.wake import Wake

RULES = Path(__file__).parents[1] / "contrib" / "prometheus" / "stillpoint.rules.yml"

TESTS = RULES.with_name("stillpoint.rules.test.yml")


def alarms() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.fixture
def exposed(sqlite_database: Database, tmp_path: Path) -> set[str]:
    """Names of everything that a service with API and worker says at /metrics."""
    with sqlite_database.write() as session:
        secret = tokens.create(session, "test").secret
    with TestClient(create_api(Settings(state_dir=tmp_path), sqlite_database, Wake())) as api:
        text = api.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    families = list(text_string_to_metric_families(text))
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_every_metric_of_an_alarm_is_exposed(exposed: set[str]) -> None:
    named = {name for rule in alarms() for name in re.findall(r"\b(?:stillpoint|process)_\w+", rule["expr"])}
    assert named - exposed == set()
    assert len(named) > 8


def test_every_alarm_says_how_urgent_it_is_what_it_is_and_what_to_do() -> None:
    for rule in alarms():
        assert re.fullmatch(r"Stillpoint[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_a_guest_beyond_its_deadline_wakes_somebody_at_once() -> None:
    (rule,) = [rule for rule in alarms() if rule["alert"] == "StillpointGuestFrozenTooLong"]
    assert (rule["labels"]["severity"], rule.get("for")) == ("page", None)


@pytest.mark.parametrize("reason", ["worker_gone", "deadline"])
def test_an_intervention_is_counted_from_zero(reason: str) -> None:
    """An increase is only seen from a value that was there before."""
    found = [sample.labels["reason"] for family in metrics.GUARD_INTERVENTIONS.collect() for sample in family.samples]
    assert reason in found


@pytest.mark.parametrize("outcome", ["failed", "waiting"])
def test_so_is_a_recovery_that_wants_a_person(outcome: str) -> None:
    found = [sample.labels["outcome"] for family in metrics.RECOVERIES.collect() for sample in family.samples]
    assert outcome in found


@pytest.mark.parametrize("thread", metrics.LOOPS)
def test_every_loop_is_counted_from_zero(thread: str) -> None:
    assert thread in [sample.labels["thread"] for family in metrics.LOOPS_DIED.collect() for sample in family.samples]


@pytest.mark.parametrize(
    ("alarm", "metric", "severity"),
    [
        ("StillpointSnapshotsFail", "stillpoint_domain_snapshot_failed", "ticket"),
        ("StillpointNoNewPoint", "stillpoint_domain_newest_point_seconds", "ticket"),
        ("StillpointQueueGrowsOld", "stillpoint_oldest_queued_job_seconds", "ticket"),
        ("StillpointSchedulesNotDecided", "stillpoint_schedule_overdue_seconds", "ticket"),
        ("StillpointRunsMissed", "stillpoint_schedule_runs_missed", "ticket"),
        ("StillpointPromiseBroken", "stillpoint_domain_promise_deadline_timestamp_seconds", "ticket"),
        ("StillpointPromisesBroken", "stillpoint_protection_domains", "ticket"),
        ("StillpointPoliciesTie", "stillpoint_protection_domains", "ticket"),
        ("StillpointRepositoryFillsUp", "stillpoint_repository_full_timestamp_seconds", "ticket"),
        ("StillpointLibvirtAway", "stillpoint_host_libvirt_connected", "page"),
        ("StillpointDatabaseNotWritable", "stillpoint_database_writable", "page"),
        ("StillpointStateFolderFull", "stillpoint_worker_state_folder_writable", "page"),
        ("StillpointLoopDied", "stillpoint_loops_died_total", "page"),
        ("StillpointLoopHangs", "stillpoint_loop_hangs", "page"),
    ],
)
def test_what_keeps_points_from_being_made_has_an_alarm(alarm: str, metric: str, severity: str) -> None:
    (rule,) = [rule for rule in alarms() if rule["alert"] == alarm]
    assert metric in rule["expr"]
    assert rule["labels"]["severity"] == severity


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
@pytest.mark.parametrize("command", [("check", "rules", "--lint=all", "--lint-fatal", str(RULES)), ("test", "rules", str(TESTS))])
def test_prometheus_itself_finds_the_rules_right_and_each_alarm_comes_when_it_should(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alarm_is_tried_in_the_tests_of_the_rules() -> None:
    tried = TESTS.read_text()
    assert [rule["alert"] for rule in alarms() if rule["alert"] not in tried] == []
