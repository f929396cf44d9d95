"""The README names every setting, command and call, and nothing that is not there."""

import re
from pathlib import Path

import pytest
import typer.main
from fastapi.routing import APIRoute

from service.api.routes import domains, hosts, jobs, quiesce, recovery_points
from service.api.routes import service as service_routes
from service.cli import app
from service.config import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def first_cells() -> list[str]:
    """What stands in backticks in the first column of a table."""
    rows = re.findall(r"^\| (.*?) \|", README, re.MULTILINE)
    return [words for row in rows for words in re.findall(r"`([^`]*)`", row)]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `STILLPOINT_(\w+)` \| (.*?) \|", README, re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, str | int | float):
            assert rows[name.upper()] == f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def test_every_call_of_the_api_is_in_the_table() -> None:
    routers = (jobs.router, domains.router, quiesce.router, recovery_points.router, hosts.router, service_routes.router)
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    calls = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    shown = {cell for cell in first_cells() if re.match(r"(GET|POST|DELETE|PUT|PATCH) ", cell)}
    assert calls == shown


def test_every_command_is_in_the_table() -> None:
    commands = set(typer.main.get_group(app).commands)
    shown = {cell.split()[1] for cell in first_cells() if cell.startswith("stillpoint ")}
    assert commands == shown


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
