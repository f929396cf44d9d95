"""The command about retention: `stillpoint retention preview`. It removes nothing."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from service.cli_jobs import Token, Url, service_at
from service.cli_progress import in_bytes

retention_app = typer.Typer(help="See which points retention removes, and why it keeps the others.", no_args_is_help=True)
_TRIED = "Try this number in the place of what the policy says."
Kept = Annotated[int | None, typer.Option(min=0, help=_TRIED)]


@retention_app.callback()
def retention() -> None:
    """See which points retention removes, and why it keeps the others."""


@retention_app.command("preview")
def preview(
    *,
    policy: Annotated[str | None, typer.Option(help="Only points of this policy: its name or id.")] = None,
    track: Annotated[str | None, typer.Option(help="Only points of the tracks of this name.")] = None,
    repository: Annotated[str | None, typer.Option("--repository", "-r", help="Only points in this repository: its name or id.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only points of this domain: its name or UUID.")] = None,
    keep_last: Kept = None,
    keep_hourly: Kept = None,
    keep_daily: Kept = None,
    keep_weekly: Kept = None,
    keep_monthly: Kept = None,
    keep_yearly: Kept = None,
    minimum_age_s: Annotated[int | None, typer.Option(min=0, help="Try: seconds for which a point stays in any case.")] = None,
    merge_at: Annotated[int | None, typer.Option(min=1, help="Try: merge when a chain has so many points that nothing else keeps.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="List the points that stay, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show what would go now, and why. With a rule such as --keep-daily, all rules are tried as given here, and nothing is saved."""
    tried = {
        "keep_last": keep_last,
        "keep_hourly": keep_hourly,
        "keep_daily": keep_daily,
        "keep_weekly": keep_weekly,
        "keep_monthly": keep_monthly,
        "keep_yearly": keep_yearly,
        "minimum_age_s": minimum_age_s,
        "merge_at": merge_at,
    }
    rules = {name: number for name, number in tried.items() if number is not None}
    question = {"policy": policy, "track": track, "repository": repository, "domain": domain, "rules": rules or None}
    show = "all" if show_all or as_json else "goes"
    asked = {name: value for name, value in question.items() if value is not None} | {"show": show}
    answer = service_at(url, token).post("retention", "preview", body=asked)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    _tell(answer)


def _tell(answer: Mapping[str, Any]) -> None:
    for point in answer["points"]:
        typer.echo(_line(point))
    for line in _summary(answer):
        typer.echo(line, err=True)


def _line(point: Mapping[str, Any]) -> str:
    size = f", {in_bytes(point['size_bytes'])}" if point["size_bytes"] is not None else ""
    why = "; ".join(reason["text"] for reason in point["reasons"])
    return f"{point['id']}  {point['point_in_time_at']}  {point['domain']['name']}  {point['decision']}{size}: {why}"


def _summary(answer: Mapping[str, Any]) -> Iterable[str]:
    yield f"{answer['goes']} would go ({in_bytes(answer['goes_bytes'])}), {answer['stays']} would stay. Nothing was removed."
    for count in answer["counts"]:
        yield f"  {count['decision']:<5}  {count['code']:<16} {count['points']:>7}  {in_bytes(count['size_bytes'])}"
