"""The command that says which domains are protected as promised: `stillpoint protection`."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any

import typer

from service.cli_jobs import Token, Url, service_at
from service.cli_progress import in_bytes

PAGE = "200"
"""Domains that one request asks for."""
MIN_WIDTH = 60
"""Columns. On a narrower terminal the lines are longer than the terminal."""
INDENT = 4 * " "
QUIET = frozenset({"protected", "waiting"})
"""States of domains that are shown with `--all` only."""
WORDS = {"at_risk": "at risk"}


class Exit(IntEnum):
    """How the command ends, for programs that watch it. 1 also stands for every error, and 2 for wrong arguments."""

    kept = 0
    at_risk = 3
    """No promise is broken. The promise of at least one domain is at risk."""
    broken = 4
    """The promise of at least one domain is broken, or two policies select the domain equally well, so that none of them has it."""


def protection(
    domain: Annotated[str | None, typer.Argument(help="Only this domain: its name or UUID. Left out: all domains.")] = None,
    *,
    state: Annotated[str | None, typer.Option(help="broken, tie, at_risk, unprotected, paused, waiting or protected.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only domains that have this policy: its name or id.")] = None,
    host: Annotated[str | None, typer.Option(help="Only domains of this host.")] = None,
    repository: Annotated[
        str | None, typer.Option("--repository", "-r", help="Only domains that are backed up to it: its name or id.")
    ] = None,
    proof_too_old: Annotated[bool, typer.Option("--proof-too-old", help="Only domains whose newest proof is older than promised.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show domains that are protected, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Which domains are protected as promised, and why the others are not, the most urgent first.

    Exit code 0: no promise is broken or at risk. 3: a promise is at risk. 4: a promise is broken, or policies tie. 1: there is no answer.
    """
    service = service_at(url, token)
    if domain is not None:
        document = _of_one(service.get("protection", domain) if host is None else service.get("protection", domain, query={"host": host}))
    else:
        wanted = {"state": state, "policy": policy, "host": host, "repository": repository, "limit": PAGE}
        query = {name: value for name, value in wanted.items() if value is not None} | ({"proof_too_old": "true"} if proof_too_old else {})
        document = _joined(service.pages("protection", query=query))
    if as_json:
        typer.echo(json.dumps(document if domain is None else document["items"][0], indent=2))
    else:
        asks_for_some = domain is not None or state is not None or proof_too_old
        _show(document, show_all=show_all or asks_for_some)
    raise typer.Exit(_exit_of(document["items"]))


def _of_one(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"summary": None, "repositories": document["repositories"], "items": [document]}


def _joined(pages: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    """All pages as one. A domain that moved between two pages is shown once."""
    first = next(pages)
    items = {item["domain"]["id"]: item for item in first["items"]}
    for page in pages:
        items = {item["domain"]["id"]: item for item in page["items"]} | items
    return {**first, "items": sorted(items.values(), key=_urgency), "next_cursor": None}


def _urgency(item: Mapping[str, Any]) -> tuple[int, str]:
    # Imported here: the help of another command does not need the rules.
    from service.model.protection import URGENCY, ProtectionState

    known = [state.value for state in URGENCY]
    return known.index(ProtectionState(item["state"]).value), item["domain"]["name"]


def _exit_of(items: Sequence[Mapping[str, Any]]) -> Exit:
    states = {item["state"] for item in items}
    if states & {"broken", "tie"}:
        return Exit.broken
    return Exit.at_risk if "at_risk" in states else Exit.kept


# --- the table ------------------------------------------------------------------------------------


def _show(document: Mapping[str, Any], *, show_all: bool) -> None:
    shown = [item for item in document["items"] if show_all or item["state"] not in QUIET]
    if shown:
        _show_table(shown)
    for repository in document["repositories"]:
        typer.echo(_repository(repository))
    for copy in document.get("copies", ()):
        typer.echo(_copy(copy))
    if document["summary"] is not None:
        typer.echo(_summary(document["summary"]))


def _show_table(items: Sequence[Mapping[str, Any]]) -> None:
    """Each domain on one line, and below it the reason and the remedy."""
    rows = [("STATE", "DOMAIN", "POLICY", "NEWEST POINT THAT KEEPS IT", "PROMISE"), *(_row(item) for item in items)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    typer.echo(lines[0])
    for item, line in zip(items, lines[1:], strict=True):
        typer.echo(line)
        if item["reason"] is not None:
            typer.echo(_wrapped(item["reason"]["sentence"], INDENT))
            typer.echo(_wrapped(item["reason"]["remedy"], f"{INDENT}-> "))


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    point = item["newest_kept"]
    newest = _minute(point["point_in_time_at"]) if point is not None else "none"
    state = WORDS.get(item["state"], item["state"])
    return state, item["domain"]["name"], item["policy"] or "none", newest, _until(item)


def _until(item: Mapping[str, Any]) -> str:
    if item["state"] in ("tie", "unprotected"):
        return "none is made"
    if item["broken_at"] is None:
        return "holds"
    return f"{'broken since' if item['broken_part'] is not None else 'holds until'} {_minute(item['broken_at'])}"


def _minute(instant: str) -> str:
    """As in the answers of the service, in UTC."""
    return f"{instant[:10]} {instant[11:16]}Z"


def _wrapped(text: str, begin: str) -> str:
    width = max(MIN_WIDTH, shutil.get_terminal_size().columns)
    after = len(begin) * " "
    return textwrap.fill(text, width, initial_indent=begin, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)


def _repository(repository: Mapping[str, Any]) -> str:
    free = f", {in_bytes(repository['free_bytes'])} free" if repository["free_bytes"] is not None else ""
    full = f", full on {_minute(repository['full_at'])} by its trend" if repository["full_at"] is not None else ""
    return f"repository {repository['name']}: {repository['state'].replace('_', ' ')}{free}{full}"


def _copy(copy: Mapping[str, Any]) -> str:
    since = f" since {_minute(copy['waiting_since'])}" if copy["waiting_since"] is not None else ""
    in_words = {
        "points_wait": f"{copy['waiting']} points wait{since}",
        "lock_not_kept": "its store does not keep locks",
        "proof_too_old": "nobody tried lately whether its store keeps locks",
        "points_damaged": f"{copy['damaged']} points are damaged",
    }
    return f"copy {copy['name']} of {copy['repository']['name']}: {', '.join(in_words.get(fault, fault) for fault in copy['faults'])}"


def _summary(summary: Mapping[str, Any]) -> str:
    """The counts that are not zero, the most urgent first."""
    names = ("broken", "tie", "at_risk", "unprotected", "paused", "waiting", "protected")
    counts = [f"{summary[name]} {WORDS.get(name, name)}" for name in names if summary[name]]
    proofs = f"; {summary['proofs_too_old']} with a proof that is too old" if summary["proofs_too_old"] else ""
    return f"{summary['domains']} domains: {', '.join(counts)}{proofs}" if counts else "There are no domains."
