"""`stillpoint protection`: what a tired person reads in the morning, and what a program that watches gets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.schemas import examples_protection as examples
from service.cli_protection import Exit
from tests.scripted_service import ScriptedService, Stillpoint, scripted

LIST = "GET /api/v1/protection?limit=200"


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def domain(name: str, state: str, **fields: Any) -> dict[str, Any]:
    return {**examples.BROKEN, "domain": {"id": f"id of {name}", "name": name}, "state": state, **fields}


def page(*items: dict[str, Any], cursor: str | None = None, **fields: Any) -> dict[str, Any]:
    return {**examples.PROTECTION, "repositories": [], "items": list(items), "next_cursor": cursor, **fields}


def quiet(name: str, state: str = "protected") -> dict[str, Any]:
    return domain(name, state, reason=None, broken_part=None)


def test_a_broken_promise_is_shown_with_its_reason_and_its_remedy(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, page(domain("db1", "broken"), quiet("web1")))
    done = stillpoint("protection")
    assert done.returncode == Exit.broken
    assert examples.BROKEN["reason"]["sentence"] in done.stdout
    assert examples.BROKEN["reason"]["remedy"] in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert line.split()[:5] == ["broken", "db1", "production", "2026-01-28", "22:00Z"]
    assert line.endswith("2026-01-30 00:00Z")
    assert "web1" not in done.stdout


def test_what_is_protected_is_shown_when_it_is_asked_for(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, page(quiet("web1"), quiet("new", "waiting")))
    assert "web1" not in stillpoint("protection").stdout
    done = stillpoint("protection", "--all")
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("protected", "waiting"))] == ["new", "web1"]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["protected", "waiting"], Exit.kept),
        (["unprotected", "paused"], Exit.kept),
        (["at_risk", "protected"], Exit.at_risk),
        (["broken", "at_risk"], Exit.broken),
        (["tie"], Exit.broken),
    ],
)
def test_a_monitor_reads_the_exit_code(stillpoint: Stillpoint, service: ScriptedService, states: list[str], code: Exit) -> None:
    service.says(LIST, page(*(domain(f"vm{n}", state) for n, state in enumerate(states))))
    assert stillpoint("protection").returncode == code


def test_without_an_answer_the_code_is_that_of_every_error(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, {"code": "internal_error", "title": "", "detail": "", "remedy": ""}, status=500)
    assert stillpoint("protection").returncode == 1


def test_every_page_is_in_the_json(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, page(domain("db1", "broken"), cursor="more"))
    # While the second page was asked for, another domain broke, so the first one comes once more.
    service.says(f"{LIST}&cursor=more", page(domain("db1", "broken"), quiet("web1")))
    found = json.loads(stillpoint("protection", "--json").stdout)
    assert [item["domain"]["name"] for item in found["items"]] == ["db1", "web1"]
    assert found["summary"] == examples.SUMMARY


def test_the_filters_are_those_of_the_service(stillpoint: Stillpoint, service: ScriptedService) -> None:
    asked = "state=broken&policy=gold&host=hv1&repository=nas&limit=200&proof_too_old=true"
    service.says(f"GET /api/v1/protection?{asked}", page())
    words = ("--state", "broken", "--policy", "gold", "--host", "hv1", "--repository", "nas", "--proof-too-old")
    assert stillpoint("protection", *words).returncode == Exit.kept


def test_one_domain_is_shown_whatever_its_state(stillpoint: Stillpoint, service: ScriptedService) -> None:
    one = {**examples.ONE_DOMAIN, **quiet("web1"), "repositories": []}
    service.says("GET /api/v1/protection/web1", one)
    done = stillpoint("protection", "web1")
    assert (done.returncode, done.stdout.splitlines()[1].split()[:2]) == (Exit.kept, ["protected", "web1"])
    assert json.loads(stillpoint("protection", "web1", "--json").stdout) == one


def test_a_repository_that_fills_up_is_a_line_with_its_date(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, page(repositories=[examples.REPOSITORY]))
    (line,) = [line for line in stillpoint("protection").stdout.splitlines() if line.startswith("repository nas")]
    assert "2026-03-04 11:20Z" in line


def test_a_copy_with_faults_is_told_in_words(stillpoint: Stillpoint, service: ScriptedService) -> None:
    service.says(LIST, page(copies=[{**examples.COPY, "faults": ["points_wait", "lock_not_kept"]}]))
    shown = stillpoint("protection").stdout
    assert "copy offsite of nas: 212 points wait since 2026-01-29 22:05Z, its store does not keep locks" in shown
