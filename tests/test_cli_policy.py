"""`stillpoint policy …`: what it shows, what it asks the service for, and how it ends."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.schemas.examples_policy import POLICY, PREVIEW
from service.model.backup_policy import BackupPolicy
from tests.model.written_policies import a_policy
from tests.scripted_service import ScriptedService, Stillpoint, error_document, scripted

LIST, APPLY = "GET /api/v1/policies", "POST /api/v1/policies/apply"


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def canonical(**more: Any) -> dict[str, Any]:
    return BackupPolicy.from_document(a_policy(**more)).as_document()


def on_record(revision: int = 3, **more: Any) -> dict[str, Any]:
    document = canonical(**more)
    return {**POLICY, "id": f"id-of-{document['name']}", "name": document["name"], "revision": revision, "document": document}


def listed(service: ScriptedService, *policies: dict[str, Any]) -> None:
    service.says(LIST, {"items": list(policies), "next_cursor": None})


def file_of(folder: Path, *documents: dict[str, Any]) -> str:
    file = folder / "policies.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return str(file)


NEW, CHANGED, SAME = a_policy(name="new"), a_policy(name="changed", description="now"), a_policy(name="same")


def test_what_apply_shows_is_what_it_sends(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service, on_record(name="changed"), on_record(name="same"), on_record(name="other"))
    service.says(
        APPLY, {"dry_run": True, "policies": []}, {"dry_run": False, "policies": [{"name": "new", "change": "created", "revision": 1}]}
    )
    done = stillpoint("policy", "apply", "-f", file_of(tmp_path, NEW, CHANGED, SAME), "--yes")
    assert done.returncode == 0, done.stderr
    wanted = [
        {"document": canonical(name="new"), "revision": 0},
        {"document": canonical(name="changed", description="now"), "revision": 3},
    ]
    assert service.bodies_of(APPLY) == [{"policies": wanted, "remove": [], "dry_run": dry_run} for dry_run in (True, False)]
    lines = done.stdout.splitlines()
    assert "--- /dev/null" in lines
    assert {"-description: ''", "+description: now"} <= set(lines)
    assert not any("same" in line or "other" in line for line in lines)


def test_nothing_is_removed_unless_that_is_asked_for(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service, on_record(name="same"), on_record(7, name="other"))
    service.says(APPLY, {"dry_run": True, "policies": []})
    file = file_of(tmp_path, SAME)
    assert stillpoint("policy", "apply", "-f", file, "--yes").returncode == 0
    assert service.bodies_of(APPLY) == []
    done = stillpoint("policy", "apply", "-f", file, "--yes", "--prune")
    assert (done.returncode, "+++ /dev/null" in done.stdout) == (0, True)
    assert [body["remove"] for body in service.bodies_of(APPLY) if body] == 2 * [[{"policy": "other", "revision": 7}]]


def test_a_dry_run_is_checked_by_the_service_and_writes_nothing(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service)
    service.says(APPLY, {"dry_run": True, "policies": []})
    assert stillpoint("policy", "apply", "-f", file_of(tmp_path, NEW), "--dry-run").returncode == 0
    assert [body["dry_run"] for body in service.bodies_of(APPLY) if body] == [True]


def test_what_the_service_refuses_is_never_written(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service)
    service.says(APPLY, error_document("policy_tie"), status=409)
    done = stillpoint("policy", "apply", "-f", file_of(tmp_path, NEW), "--yes")
    assert (done.returncode, "policy_tie" in done.stderr) == (1, True)
    assert [body["dry_run"] for body in service.bodies_of(APPLY) if body] == [True]


def test_without_a_terminal_it_has_to_be_told_yes(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service)
    service.says(APPLY, {"dry_run": True, "policies": []})
    service.says("GET /api/v1/policies/new", on_record(name="new"))
    assert stillpoint("policy", "apply", "-f", file_of(tmp_path, NEW)).returncode == 2
    assert stillpoint("policy", "delete", "new").returncode == 2
    assert [call for call, body in service.asked if body is None or not body["dry_run"]] == [LIST, "GET /api/v1/policies/new"]


def test_a_file_with_a_fault_asks_the_service_for_nothing(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    done = stillpoint("policy", "apply", "-f", file_of(tmp_path, NEW, a_policy(tracks=[])), "--yes")
    assert (done.returncode, "policies.yaml:" in done.stderr, service.asked) == (1, True, [])


@pytest.mark.parametrize(("documents", "code"), [((SAME,), 0), ((SAME, NEW), 3), ((CHANGED,), 3)])
def test_diff_tells_by_its_exit_code_whether_something_differs(
    stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path, documents: tuple[dict[str, Any], ...], code: int
) -> None:
    listed(service, on_record(name="same"), on_record(name="changed"))
    done = stillpoint("policy", "diff", "-f", file_of(tmp_path, *documents))
    assert (done.returncode, bool(done.stdout)) == (code, code != 0)
    assert {call for call, _ in service.asked} == {LIST}


def test_what_show_prints_changes_nothing_when_it_is_applied(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    policy = on_record(blackouts=[{"from": "18:00", "to": "24:00", "time_zone": "UTC"}], description="off")
    service.says("GET /api/v1/policies/production", policy)
    listed(service, policy)
    shown = stillpoint("policy", "show", "production")
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    assert stillpoint("policy", "diff", "-f", str(tmp_path / "shown.yaml")).returncode == 0
    assert json.loads(stillpoint("policy", "show", "production", "--json").stdout) == policy


def test_a_file_that_does_not_say_paused_resumes_nothing(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    listed(service, on_record(name="same", paused=True))
    assert stillpoint("policy", "diff", "-f", file_of(tmp_path, SAME)).returncode == 0
    assert stillpoint("policy", "diff", "-f", file_of(tmp_path, {**SAME, "paused": False})).returncode == 3


@pytest.mark.parametrize(("answer", "code", "sent"), [("n\n", 3, [True]), ("y\n", 0, [True, False])])
def test_a_person_at_a_terminal_is_asked(
    stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path, answer: str, code: int, sent: list[bool]
) -> None:
    listed(service)
    service.says(APPLY, {"dry_run": True, "policies": []})
    person, terminal = os.openpty()
    os.write(person, answer.encode())
    line = stillpoint.line("policy", "apply", "-f", file_of(tmp_path, NEW))
    done = subprocess.run(line, env=stillpoint.environment, stdin=terminal, capture_output=True, timeout=60, check=False)
    os.close(person)
    os.close(terminal)
    assert (done.returncode, [body["dry_run"] for body in service.bodies_of(APPLY) if body]) == (code, sent)


def test_every_policy_is_a_line(stillpoint: Stillpoint, service: ScriptedService) -> None:
    listed(service, on_record(name="a"), {**on_record(name="b"), "paused": True})
    assert [line.split()[:2] for line in stillpoint("policy", "list").stdout.splitlines()] == [["a", "active,"], ["b", "paused,"]]
    assert [json.loads(line)["name"] for line in stillpoint("policy", "list", "--json").stdout.splitlines()] == ["a", "b"]


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_pause_and_resume_ask_the_service(stillpoint: Stillpoint, service: ScriptedService, call: str) -> None:
    service.says(f"POST /api/v1/policies/production/{call}", on_record())
    assert stillpoint("policy", call, "production").returncode == 0


def test_delete_removes_what_was_shown(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("GET /api/v1/policies/production", on_record(5))
    service.says("DELETE /api/v1/policies/id-of-production?revision=5", {"id": "id-of-production", "name": "production", "revision": 5})
    assert stillpoint("policy", "delete", "production", "--yes").returncode == 0


def test_a_preview_is_of_a_policy_or_of_files(stillpoint: Stillpoint, service: ScriptedService, tmp_path: Path) -> None:
    service.says("POST /api/v1/policies/production/preview?days=3", PREVIEW)
    service.says("POST /api/v1/policies/preview?days=7", PREVIEW)
    assert json.loads(stillpoint("policy", "preview", "production", "--days", "3", "--json").stdout) == PREVIEW
    shown = stillpoint("policy", "preview", "-f", file_of(tmp_path, NEW)).stdout
    assert ("db-1" in shown, "rest" in shown, "2026-02-01" in shown) == (True, True, True)
    assert service.bodies_of("POST /api/v1/policies/preview?days=7") == [{**canonical(name="new"), "paused": None}]
    assert [stillpoint("policy", "preview", *both).returncode for both in ((), ("a", "-f", "b"))] == [2, 2]
