"""The commands about copies of repositories elsewhere: `stillpoint copy …`. The worker of the repository's host does what they ask."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.cli_jobs import AsJson, NoWait, Token, Url, ask_and_wait, service_at
from service.cli_progress import in_bytes
from service.model.copied import CopyAction
from service.model.copy_target import CopyKind
from service.model.requests import CopyRequest

copy_app = typer.Typer(
    name=CopyRequest.kind.value, help="Keep copies of a repository elsewhere, and bring points back from there.", no_args_is_help=True
)
Repository = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The name or the id of the repository.")]
NameOrId = Annotated[str, typer.Argument(metavar="COPY", help="The name or the id of the copy.")]
Points = Annotated[list[str] | None, typer.Argument(metavar="[POINT]...", help="Only these points, and those on which they stand.")]
Kept = Annotated[int, typer.Option(min=0, help="Keep the newest point of so many periods.")]
Rate = Annotated[int | None, typer.Option(min=1, help="Bytes a second.")]


@copy_app.command("add")
def add(
    repository: Repository,
    name: Annotated[str, typer.Argument(help="A name for the copy.")],
    *,
    folder: Annotated[str | None, typer.Option(help="Its folder on the host: it must be there, and be empty.")] = None,
    bucket: Annotated[str | None, typer.Option(help="Its bucket, for a store that speaks S3.")] = None,
    prefix: Annotated[str | None, typer.Option(help="What the names of all objects in the bucket begin with.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="The address of the S3 server. Left out: Amazon's.")] = None,
    region: Annotated[str | None, typer.Option(help="The region of the bucket.")] = None,
    remote: Annotated[str | None, typer.Option(help="REMOTE:PATH, for anything that rclone reaches.")] = None,
    key: Annotated[str | None, typer.Option(help="Where the credentials are: file:/path or command:program.")] = None,
    retain_days: Annotated[int | None, typer.Option(min=1, help="Lock each point for so many days. The lock is proven at once.")] = None,
    lock_mode: Annotated[str | None, typer.Option(help="compliance or governance.")] = None,
    rate_limit_bytes: Rate = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Register a copy. One of --folder, --bucket and --remote says what it is."""
    kinds = {CopyKind.folder: folder, CopyKind.s3: bucket, CopyKind.rclone: remote}
    named = [kind for kind, value in kinds.items() if value is not None]
    if len(named) != 1:
        raise typer.BadParameter("name one of --folder, --bucket and --remote")
    place = {"path": folder, "bucket": bucket, "prefix": prefix, "endpoint": endpoint, "region": region, "remote": remote}
    target = {"kind": named[0].value} | {field: value for field, value in place.items() if value is not None}
    more = {"key": key, "retain_days": retain_days, "lock_mode": lock_mode, "rate_limit_bytes": rate_limit_bytes}
    body = {"name": name, "target": target} | {field: value for field, value in more.items() if value is not None}
    typer.echo(_line(service_at(url, token).post("repositories", repository, "copies", body=body)))


@copy_app.command("list")
def list_all(repository: Repository, url: Url = None, token: Token = None) -> None:
    """Every copy of a repository, and whether its store was proven to keep its locks."""
    copies = list(service_at(url, token).items("repositories", repository, "copies"))
    for copy in copies:
        typer.echo(_line(copy))
    if not copies:
        typer.echo("The repository has no copies. `stillpoint copy add` registers one.", err=True)


@copy_app.command("send")
def send(
    repository: Repository,
    copy: NameOrId,
    points: Points = None,
    *,
    rate_limit_bytes: Rate = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Send the sealed points that are missing there, each after those on which it stands."""
    body = _asked(repository, copy, CopyAction.send, points, rate_limit_bytes)
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@copy_app.command("fetch")
def fetch(
    repository: Repository,
    copy: NameOrId,
    points: Annotated[list[str], typer.Argument(metavar="POINT...", help="The ids of points: see `stillpoint copy points`.")],
    *,
    rate_limit_bytes: Rate = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Bring points back into the repository, with those on which they stand. Then they can be restored as ever."""
    body = _asked(repository, copy, CopyAction.fetch, points, rate_limit_bytes)
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@copy_app.command("check")
def check(
    repository: Repository,
    copy: NameOrId,
    points: Points = None,
    *,
    rate_limit_bytes: Rate = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Read back what is there, and hold every byte against the manifests."""
    body = _asked(repository, copy, CopyAction.check, points, rate_limit_bytes)
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@copy_app.command("prove")
def prove(
    repository: Repository,
    copy: NameOrId,
    *,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Attack a sentinel there now, to see whether the store keeps its locks. `stillpoint copy proofs` shows the answers."""
    body = _asked(repository, copy, CopyAction.prove, None, None)
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@copy_app.command("keep")
def keep(
    repository: Repository,
    copy: NameOrId,
    *,
    last: Kept = 0,
    daily: Kept = 0,
    weekly: Kept = 0,
    monthly: Kept = 0,
    yearly: Kept = 0,
    everything: Annotated[bool, typer.Option("--everything", help="Nothing is removed there by itself any more.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Say which points stay there when the repository has removed them. What is locked stays in any case."""
    numbers = {"keep_last": last, "keep_daily": daily, "keep_weekly": weekly, "keep_monthly": monthly, "keep_yearly": yearly}
    if everything is any(numbers.values()):
        raise typer.BadParameter("name numbers such as --monthly 12, or --everything")
    change = {"retention": None if everything else numbers}
    typer.echo(_line(service_at(url, token).patch("repositories", repository, "copies", copy, body=change)))


@copy_app.command("remove")
def remove(
    repository: Repository,
    copy: NameOrId,
    points: Points = None,
    *,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Remove points there: those that are named, or what its rules do not keep. Never what is locked."""
    body = _asked(repository, copy, CopyAction.remove, points, None)
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@copy_app.command("points")
def points(repository: Repository, copy: NameOrId, url: Url = None, token: Token = None) -> None:
    """The points that are there, also those that the repository has lost."""
    for point in service_at(url, token).items("repositories", repository, "copies", copy, "points"):
        size = in_bytes(point["size_bytes"]) if point["size_bytes"] is not None else "-"
        words = [point["recovery_point"], point["domain"]["name"], point["point_in_time_at"], point["state"], size]
        until = f"retained until {point['retained_until']}" if point["retained_until"] is not None else "not retained"
        typer.echo("  ".join([*words, until]))


@copy_app.command("proofs")
def proofs(repository: Repository, copy: NameOrId, url: Url = None, token: Token = None) -> None:
    """What each attack on a sentinel came to, the newest first."""
    for proof in service_at(url, token).get("repositories", repository, "copies", copy, "proofs")["items"]:
        typer.echo(f"{proof['at']}  {proof['immutability']}  {proof['lock_mode']}  {proof['why_not'] or ''}".rstrip())
        for answer in proof["answers"]:
            reply = "accepted" if answer["accepted"] else f"refused ({answer['code']})"
            typer.echo(f"  {answer['attack']:<10} {reply:<24} {'holds' if answer['holds'] else 'BROKEN'}: {answer['what']}")


@copy_app.command("forget")
def forget(repository: Repository, copy: NameOrId, url: Url = None, token: Token = None) -> None:
    """Take a copy off the list. Nothing there is touched."""
    forgotten = service_at(url, token).delete("repositories", repository, "copies", copy)
    typer.echo(f"{forgotten['id']}  {forgotten['name']}")


def _asked(repository: str, copy: str, action: CopyAction, points: list[str] | None, rate: int | None) -> dict[str, Any]:
    body = {"recovery_points": points or None, "rate_limit_bytes": rate}
    asked = {"kind": CopyRequest.kind.value, "repository": repository, "copy": copy, "action": action.value}
    return asked | {field: value for field, value in body.items() if value is not None}


def _line(copy: Mapping[str, Any]) -> str:
    target = copy["target"]
    place = target.get("path") or target.get("remote") or "/".join(part for part in (target["bucket"], target.get("prefix")) if part)
    counts = ", ".join(f"{count} {state}" for state, count in copy["points"].items() if count)
    proven = f"{copy['immutability']} (proven {copy['proven_at']})" if copy["proven_at"] is not None else copy["immutability"]
    return "  ".join([copy["id"], copy["name"], f"{target['kind']}:{place}", counts or "empty", proven])
