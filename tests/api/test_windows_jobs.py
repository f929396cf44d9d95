"""GET /api/v1/jobs/{id} of jobs that froze a simulated Windows guest: everything in them is documented, and it is what the job wrote."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.schemas import examples
from service.api.schemas.jobs import JobAnswer
from service.db.engine import Database
from service.model.policy import WINDOWS_HOLD_LIMIT_MS, WINDOWS_HOLD_MS
from tests.api.undocumented import undocumented
from tests.scenes.windows import WindowsScene

pytestmark = pytest.mark.windows

SCENARIOS = ["healthy-2022", "sql-writer-failed", "hold-lost", "heavy-io", "german-retryable", "vssadmin-garbage-after", "exec-blocked"]


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    folder = tmp_path / "scene"
    folder.mkdir()
    return WindowsScene(sqlite_database, folder)


def _read(api: TestClient, job_id: str) -> dict[str, Any]:
    document: dict[str, Any] = api.get(f"/api/v1/jobs/{job_id}").json()
    return document


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_field_of_a_job_is_documented(api: TestClient, scene: WindowsScene, name: str) -> None:
    scene.play(name)
    job = scene.take()
    document = _read(api, job.id)

    assert undocumented(JobAnswer.model_validate(document)) == []
    assert (document["vss"], document["auto_recovery"]) == (job.vss, job.auto_recovery)
    assert (document["vss_outcome"], document["writer_failed"]) == (job.vss_outcome, job.writer_failed)


def test_so_is_what_has_changed_in_a_guest(api: TestClient, scene: WindowsScene) -> None:
    scene.play("healthy-2022")
    scene.take()
    scene.play("full-backup-with-sql")
    document = _read(api, scene.take().id)

    assert document["vss"]["drift"] != []
    assert undocumented(JobAnswer.model_validate(document)) == []


def test_and_a_job_of_a_linux_guest(api: TestClient, scene: WindowsScene) -> None:
    document = _read(api, scene.run().id)

    assert (document["vss"], document["vss_outcome"], document["writer_failed"]) == ({"applicable": False}, None, None)
    assert document["auto_recovery"]["mode"] == "not_applicable"
    assert undocumented(JobAnswer.model_validate(document)) == []


def test_the_failed_writer_is_found_by_the_filter_and_named_in_the_job(api: TestClient, scene: WindowsScene) -> None:
    scene.play("healthy-2022")
    well = scene.take().id
    scene.play("sql-writer-failed")
    failed = scene.take().id

    assert [item["id"] for item in api.get("/api/v1/jobs?writer_failed=true").json()["items"]] == [failed]
    assert [item["id"] for item in api.get("/api/v1/jobs?writer_failed=false").json()["items"]] == [well]
    assert [writer["name"] for writer in _read(api, failed)["vss"]["writers"] if writer["newly_failed"]] == ["SqlServerWriter"]


def test_the_example_of_a_windows_job_has_the_limits_of_windows() -> None:
    example = examples.WINDOWS_JOB
    asked = [example["request"]["freeze"][name] for name in ("hold_limit_ms", "hold_soft_ms")]
    assert [limit for limit in asked if limit is not None and limit >= WINDOWS_HOLD_MS] == []
    assert example["timing"]["limits"]["hold_ms"] == WINDOWS_HOLD_LIMIT_MS
    assert example["timing"]["hold_ms"] == example["vss"]["steps"][5]["duration_ms"]


def test_the_example_of_a_windows_job_has_the_fields_of_a_real_one(api: TestClient, scene: WindowsScene) -> None:
    scene.play("sql-writer-failed")
    real = _read(api, scene.take().id)
    for part in ("freeze", "timing", "vss", "auto_recovery"):
        assert set(examples.WINDOWS_JOB[part]) == set(real[part]), part
    assert [step["name"] for step in examples.WINDOWS_JOB["vss"]["steps"]] == [step["name"] for step in real["vss"]["steps"]]
