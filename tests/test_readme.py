"""The README names every setting, command and call, and nothing that is not there."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fastapi.routing import APIRoute

from service.api.schemas import examples_gate
from service.app import ROUTERS
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
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    calls = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    shown = {cell for cell in first_cells() if re.match(r"(GET|POST|DELETE|PUT|PATCH) ", cell)}
    assert calls == shown


def test_every_command_is_in_the_table() -> None:
    commands = set(typer.main.get_group(app).commands)
    shown = {cell.split()[1] for cell in first_cells() if cell.startswith("stillpoint ")}
    assert commands == shown


# --- the example of the gate, run as it stands there ------------------------------------------------

CURL = """#!/bin/sh
for url in "$@"; do :; done
case "$url" in
  */release) echo released >> "$SEEN"; cat "$RELEASED" ;;
  */quiesce) cat "$OPENED" ;;
esac
"""
ZFS = """#!/bin/sh
echo snapshot >> "$SEEN"
exit "$ZFS_STATUS"
"""
PROBLEM = {"code": "agent_not_answering", "status": 409, "title": "The guest agent does not answer"}


@pytest.mark.parametrize(
    ("opened", "released", "zfs_status", "seen", "status"),
    [
        (examples_gate.OPEN_GATE, examples_gate.RELEASED, 0, ["snapshot", "released"], 0),
        (examples_gate.OPENING_GATE, examples_gate.RELEASED, 0, [], 1),
        (PROBLEM, PROBLEM, 0, [], 1),
        (None, None, 0, [], 1),
        (examples_gate.OPEN_GATE, examples_gate.RELEASED | {"held": False}, 0, ["snapshot", "released"], 1),
        (examples_gate.OPEN_GATE, examples_gate.RELEASING, 0, ["snapshot", "released"], 1),
        (examples_gate.OPEN_GATE, PROBLEM, 0, ["snapshot", "released"], 1),
        (examples_gate.OPEN_GATE, examples_gate.RELEASED, 2, ["snapshot", "released"], 1),
    ],
    ids=["held", "still opening", "refused", "no answer", "not held", "not known yet", "release refused", "zfs failed"],
)
def test_the_example_of_the_gate_snapshots_only_a_held_guest(
    tmp_path: Path, opened: Any, released: Any, zfs_status: int, seen: list[str], status: int
) -> None:
    for name, text in (("curl", CURL), ("zfs", ZFS)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name, answer in (("opened", opened), ("released", released)):
        (tmp_path / name).write_text(json.dumps(answer) if answer is not None else "")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TOKEN": "sp_x",
        "API": "http://127.0.0.1:8080/api/v1",
        "OPENED": str(tmp_path / "opened"),
        "RELEASED": str(tmp_path / "released"),
        "SEEN": str(tmp_path / "seen"),
        "ZFS_STATUS": str(zfs_status),
    }
    (script,) = re.findall(r"```sh\n(GATE=.*?)```", README, re.DOTALL)
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert (tmp_path / "seen").read_text().split() == seen if seen else not (tmp_path / "seen").exists()
    assert done.returncode == status
    assert bool(done.stderr) == (status != 0)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
