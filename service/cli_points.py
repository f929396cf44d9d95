"""The command that lists recovery points: `stillpoint points`."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.cli_jobs import Token, Url, service_at
from service.cli_progress import in_bytes


def points(
    *,
    domain: Annotated[str | None, typer.Option(help="Only those of this domain: its name or UUID.")] = None,
    repository: Annotated[str | None, typer.Option("--repository", "-r", help="Only those in this repository: its name or id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List recovery points, newest first: id, point in time, domain, state, verdict, size. `restore` and `verify` need the id."""
    wanted = {name: value for name, value in (("domain", domain), ("repository", repository)) if value is not None}
    is_empty = True
    for point in service_at(url, token).items("recovery-points", query=wanted):
        typer.echo(json.dumps(point) if as_json else _line(point))
        is_empty = False
    if is_empty:
        typer.echo("There are no such recovery points. `stillpoint backup` makes one.", err=True)


def _line(point: Mapping[str, Any]) -> str:
    where = "sealed in a repository" if point.get("repository") is not None else "beside the disks"
    size = f", {in_bytes(point['size_bytes'])}" if point.get("size_bytes") is not None else ""
    return f"{point['id']}  {point['point_in_time_at']}  {point['domain']['name']}  {point['state']}, {point['verdict']}, {where}{size}"
