"""The commands about repositories: `stillpoint repository …`. The worker of the repository's host does what they ask."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from service.cli_jobs import Token, Url, service_at
from service.cli_progress import in_bytes

if TYPE_CHECKING:
    from service.cli_client import Client

LOOK_PATIENCE_S = 90.0
"""Seconds to wait for the worker's look. A storage that hangs needs about a minute until the worker says so."""
IMPORT_PATIENCE_S = 24 * 3600.0
"""Seconds to wait for an import, which reads the manifest of every point."""
POLL_S = 0.3
"""Seconds between two looks at what the worker has published."""

repository_app = typer.Typer(help="Register repositories, look at them, and import what is in them.", no_args_is_help=True)
NameOrId = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The name or the id.")]


@repository_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A name for the repository.")],
    path: Annotated[str, typer.Argument(help="Its folder, on the hosts. A new repository needs an empty folder, or none.")],
    *,
    host: Annotated[str | None, typer.Option(help="The host whose worker looks at it. Left out: the only host.")] = None,
    key: Annotated[str | None, typer.Option(help="For encrypted points: file:/path or command:program. The key stays there.")] = None,
    max_transfers: Annotated[int | None, typer.Option(min=1, help="Backups and restores at the same time.")] = None,
    reserve_bytes: Annotated[int | None, typer.Option(min=0, help="Free space that a backup must leave.")] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Register a repository, and wait until the worker has looked at it. Exit code 1: it cannot be used."""
    service = service_at(url, token)
    body = {"name": name, "path": path, "host": host, "key": key, "max_transfers": max_transfers, "reserve_bytes": reserve_bytes}
    repository = service.post("repositories", body={field: value for field, value in body.items() if value is not None})
    _show_when_seen(service, repository["id"], before=None)


@repository_app.command("list")
def list_all(url: Url = None, token: Token = None) -> None:
    """Every repository, as its worker last saw it."""
    repositories = list(service_at(url, token).items("repositories"))
    for repository in repositories:
        typer.echo(_line(repository))
    if not repositories:
        typer.echo("There are no repositories. `stillpoint repository add` registers one.", err=True)


@repository_app.command("check")
def check(repository: NameOrId, url: Url = None, token: Token = None) -> None:
    """Let the worker look at a repository now. Exit code 1: it cannot be used."""
    service = service_at(url, token)
    before = service.get("repositories", repository)["looked_at"]
    service.post("repositories", repository, "check")
    _show_when_seen(service, repository, before=before)


@repository_app.command("import")
def import_points(repository: NameOrId, url: Url = None, token: Token = None) -> None:
    """Put every point that is in a repository on record, as after the loss of the database. Exit code 1: something was left out."""
    service = service_at(url, token)
    before = service.get("repositories", repository)["imported_at"]
    service.post("repositories", repository, "import")
    seen = _wait_until(service, repository, lambda now: now["imported_at"] != before, IMPORT_PATIENCE_S)
    result = seen["import_result"] if seen is not None else None
    if result is None:
        _end_without_an_answer(repository)
    if result.get("error") is not None:
        _end_by(result["error"])
    typer.echo(", ".join(f"{result[name]} {name}" for name in ("added", "known", "returned", "missing", "unsigned")))
    for refused in result["refused"]:
        typer.echo(f"left out: {refused['folder']}: {refused['detail']}", err=True)
    for incomplete in result["incomplete"]:
        typer.echo(f"incomplete: {incomplete['point']} needs {', '.join(incomplete['missing'])}", err=True)
    if result["refused"] or result["incomplete"]:
        raise typer.Exit(1)


@repository_app.command("verification")
def verification(
    repository: NameOrId,
    *,
    bytes_per_day: Annotated[int | None, typer.Option(min=1, help="Bytes that may be read in a day. Left out: no limit.")] = None,
    begin: Annotated[str | None, typer.Option("--from", metavar="HH:MM", help="When a read may begin.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="HH:MM", help="When reads should have ended.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="For the hours and the days, such as Europe/Berlin.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="bytes, structure or filesystem. Repeat it for several.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Verify nothing by plan any more.")] = False,
    any_time: Annotated[bool, typer.Option("--any-time", help="A budget without any limit.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show what is verified by plan. With an option: set the budget first, as a whole."""
    service = service_at(url, token)
    asked = {"bytes_per_day": bytes_per_day, "from": begin, "to": end, "time_zone": time_zone, "checks": check}
    budget = {field: value for field, value in asked.items() if value is not None}
    if off and (budget or any_time):
        raise typer.BadParameter("--off takes the budget away, so no other option goes with it")
    if off or budget or any_time:
        service.patch("repositories", repository, body={"verification": None if off else budget})
    _show_verification(service.get("repositories", repository, "verification"))


def _show_verification(shown: Mapping[str, Any]) -> None:
    budget = shown["budget"]
    if budget is None:
        typer.echo("Nothing is verified by plan. --bytes-per-day, --from and --to, or --any-time set a budget.")
    else:
        a_day = in_bytes(budget["bytes_per_day"]) if budget["bytes_per_day"] is not None else "without limit"
        typer.echo(f"{a_day} a day, from {budget['from']} to {budget['to']} ({budget['time_zone']}); {', '.join(budget['checks'])}")
        typer.echo(f"read today: {in_bytes(shown['spent_today_bytes'])}")
    for run in shown["runs"]:
        typer.echo(f"read {run['begun_at']}  {run['recovery_point']}  {run['outcome'] or 'not ended'}")
    for planned in shown["next"]:
        proven = f"proven {planned['proven_at']}" if planned["proven_at"] is not None else "never proven"
        typer.echo(f"next  {planned['recovery_point']}  {planned['why']}, {proven}, {in_bytes(planned['cost_bytes'])}")


def _show_when_seen(service: "Client", repository: str, *, before: str | None) -> None:
    seen = _wait_until(service, repository, lambda now: now["looked_at"] not in (None, before), LOOK_PATIENCE_S)
    if seen is None:
        _end_without_an_answer(repository)
    typer.echo(_line(seen))
    if seen["state"] != "ready":
        _end_by(seen["error"])


def _wait_until(
    service: "Client", repository: str, condition: Callable[[Mapping[str, Any]], bool], patience_s: float
) -> dict[str, Any] | None:
    """None: the worker did not do it in time."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        now = service.get_patiently("repositories", repository)
        if condition(now):
            return now
        time.sleep(POLL_S)
    return None


def _line(repository: Mapping[str, Any]) -> str:
    space = ""
    if repository["free_bytes"] is not None:
        space = f"  {in_bytes(repository['free_bytes'])} of {in_bytes(repository['total_bytes'])} free"
    seen = f"seen {repository['looked_at']}" if repository["looked_at"] is not None else "not seen yet"
    return f"{repository['id']}  {repository['name']}  {repository['state']}, {seen}{space}  {repository['host']}:{repository['path']}"


def _end_by(error: Mapping[str, Any] | None) -> NoReturn:
    if error is not None:
        typer.echo(f"{error['title']}: {error['detail']}\n{error['remedy']}", err=True)
    raise typer.Exit(1)


def _end_without_an_answer(repository: str) -> NoReturn:
    typer.echo(f"The worker has not looked at {repository} yet. `stillpoint host list` shows whether it is alive.", err=True)
    raise typer.Exit(1)
