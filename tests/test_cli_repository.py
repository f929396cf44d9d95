"""`stillpoint repository …`: what it asks for, what it waits for, and how it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_service import ScriptedService, Stillpoint, error_document, scripted

ID = "7f6e3f0c-0000-4000-8000-000000000003"
ONE = f"GET /api/v1/repositories/{ID}"


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def repository(state: str, looked_at: str | None = None, **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("error", "free_bytes", "total_bytes", "imported_at", "import_result"))
    named = {"id": ID, "name": "nas", "path": "/mnt/nas", "host": "hv1"}
    return {**empty, **named, "state": state, "looked_at": looked_at, **fields}


def imported(**counts: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(("added", "known", "returned", "missing", "unsigned", "refused_count", "incomplete_count"), 0)
    return {"error": None, "refused": [], "incomplete": [], **numbers, **counts}


def test_add_waits_until_the_worker_has_looked(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("POST /api/v1/repositories", repository("unknown"), status=201)
    service.says(ONE, repository("unknown"), repository("ready", "t1", free_bytes=1 << 30, total_bytes=2 << 30))
    done = stillpoint("repository", "add", "nas", "/mnt/nas", "--key", "file:/root/key", "--reserve-bytes", "4096")
    assert (done.returncode, done.stdout.split()[:2]) == (0, [ID, "nas"])
    asked = {"name": "nas", "path": "/mnt/nas", "key": "file:/root/key", "reserve_bytes": 4096}
    assert service.bodies_of("POST /api/v1/repositories") == [asked]
    assert len(service.bodies_of(ONE)) == 2


@pytest.mark.parametrize("state", ["full", "read_only", "not_answering", "gone", "bad"])
def test_a_repository_that_cannot_be_used_is_an_error(stillpoint: Stillpoint, service: ScriptedService, state: str) -> None:
    service.says("POST /api/v1/repositories", repository("unknown"), status=201)
    service.says(ONE, repository(state, "t1", error=error_document(f"repository_{state}")))
    done = stillpoint("repository", "add", "nas", "/mnt/nas")
    assert done.returncode == 1
    assert f"remedy of repository_{state}" in done.stderr


def test_every_repository_is_a_line(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(
        "GET /api/v1/repositories", {"items": [repository("ready", "t1"), repository("gone", "t2", name="old")], "next_cursor": None}
    )
    done = stillpoint("repository", "list")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["nas", "old"]


def test_a_list_of_several_pages_is_shown_whole(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("GET /api/v1/repositories", {"items": [repository("ready")], "next_cursor": "a+b"})
    service.says("GET /api/v1/repositories?cursor=a%2Bb", {"items": [repository("ready", name="second")], "next_cursor": None})
    assert [line.split()[1] for line in stillpoint("repository", "list").stdout.splitlines()] == ["nas", "second"]


def test_a_check_waits_for_a_look_after_it(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(ONE, repository("gone", "t1"), repository("gone", "t1"), repository("ready", "t2"))
    service.says(f"POST /api/v1/repositories/{ID}/check", repository("gone", "t1"), status=202)
    assert stillpoint("repository", "check", ID).returncode == 0
    assert len(service.bodies_of(ONE)) == 3


def test_an_import_says_what_it_found(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(ONE, repository("ready"), repository("ready"), repository("ready", imported_at="t1", import_result=imported(added=7)))
    service.says(f"POST /api/v1/repositories/{ID}/import", repository("ready"), status=202)
    done = stillpoint("repository", "import", ID)
    assert (done.returncode, done.stdout.startswith("7 added")) == (0, True)


def test_an_import_that_left_something_out_names_it(stillpoint: Stillpoint, service: ScriptedService) -> None:
    refused = [{"folder": "domains/x/y", "code": "signature_wrong", "detail": "detail of it"}]
    result = imported(added=7, refused_count=1, refused=refused)
    service.says(ONE, repository("ready"), repository("ready", imported_at="t1", import_result=result))
    service.says(f"POST /api/v1/repositories/{ID}/import", repository("ready"), status=202)
    done = stillpoint("repository", "import", ID)
    assert done.returncode == 1
    assert ("domains/x/y" in done.stderr, "detail of it" in done.stderr) == (True, True)


def test_an_import_names_points_that_need_one_which_is_not_there(stillpoint: Stillpoint, service: ScriptedService) -> None:
    result = imported(added=1, incomplete_count=1, incomplete=[{"point": "p2", "missing": ["p1"]}])
    service.says(ONE, repository("ready"), repository("ready", imported_at="t1", import_result=result))
    service.says(f"POST /api/v1/repositories/{ID}/import", repository("ready"), status=202)
    done = stillpoint("repository", "import", ID)
    assert (done.returncode, "p2" in done.stderr, "p1" in done.stderr) == (1, True, True)


def test_an_import_that_could_not_read_the_repository_is_its_error(stillpoint: Stillpoint, service: ScriptedService) -> None:
    result = imported(error=error_document("repository_gone"))
    service.says(ONE, repository("gone"), repository("gone", imported_at="t1", import_result=result))
    service.says(f"POST /api/v1/repositories/{ID}/import", repository("gone"), status=202)
    done = stillpoint("repository", "import", ID)
    assert (done.returncode, "detail of repository_gone" in done.stderr) == (1, True)


def test_a_repository_that_is_not_registered_is_an_error(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(ONE, error_document("repository_not_found"), status=404)
    assert stillpoint("repository", "check", ID).returncode == 1


BUDGET = {"bytes_per_day": 1 << 40, "from": "22:00", "to": "06:00", "time_zone": "UTC", "checks": ["bytes"]}
VERIFICATION = {
    "budget": BUDGET,
    "spent_today_bytes": 1 << 30,
    "next": [{"recovery_point": "p2", "why": "missing", "proven_at": None, "cost_bytes": 2 << 30}],
    "runs": [{"recovery_point": "p1", "begun_at": "t1", "outcome": "damaged"}],
}


def test_what_is_verified_by_plan_is_shown(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says("GET /api/v1/repositories/nas/verification", VERIFICATION)
    shown = stillpoint("repository", "verification", "nas").stdout.splitlines()
    for line, parts in zip(shown, (["1.0 TiB", "22:00"], ["1.0 GiB"], ["p1", "damaged"], ["p2", "missing", "2.0 GiB"]), strict=True):
        assert all(part in line for part in parts), line
    assert len(service.asked) == 1, "only an option changes the budget"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--bytes-per-day", "4096", "--from", "22:00", "--to", "06:00"], {"bytes_per_day": 4096, "from": "22:00", "to": "06:00"}),
        (["--time-zone", "Europe/Berlin", "--check", "bytes"], {"time_zone": "Europe/Berlin", "checks": ["bytes"]}),
        (["--any-time"], {}),
        (["--off"], None),
    ],
)
def test_an_option_sets_the_budget_first(stillpoint: Stillpoint, service: ScriptedService, options: list[str], asked: object) -> None:
    service.says("PATCH /api/v1/repositories/nas", {})
    service.says("GET /api/v1/repositories/nas/verification", {**VERIFICATION, "budget": None})
    assert stillpoint("repository", "verification", "nas", *options).returncode == 0
    assert [call for call, _ in service.asked] == ["PATCH /api/v1/repositories/nas", "GET /api/v1/repositories/nas/verification"]
    assert service.bodies_of("PATCH /api/v1/repositories/nas") == [{"verification": asked}]


def test_a_budget_is_not_set_and_taken_away_at_once(stillpoint: Stillpoint, service: ScriptedService) -> None:
    assert stillpoint("repository", "verification", "nas", "--off", "--any-time").returncode == 2
    assert service.asked == []
