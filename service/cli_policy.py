"""The commands about policies: `stillpoint policy …`. What a file changes is shown before anything is written."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli_jobs import Token, Url, service_at
from service.cli_policy_diff import Step, as_yaml, diff_of, steps_of
from service.cli_policy_preview import lines_of

if TYPE_CHECKING:
    from service.cli_client import Client

policy_app = typer.Typer(help="Write policies from files, see what they do, pause and remove them.", no_args_is_help=True)
NameOrId = Annotated[str, typer.Argument(metavar="POLICY", help="The name or the id.")]
Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE", help="YAML with one or more policies, a folder of such files, or - for stdin. Repeat it."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove all policies that are not in the files.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before anything is written.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer of the service as JSON.")]


class Exit(IntEnum):
    """1 stands for every error, and 2 for wrong arguments."""

    done = 0
    not_done = 3
    """`apply`, `delete`: the person declined. `diff`: something differs."""


@policy_app.command("list")
def list_all(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Every policy: its name, revision and tracks, and whether it is paused."""
    is_empty = True
    for policy in service_at(url, token).items("policies"):
        typer.echo(json.dumps(policy) if as_json else _line(policy))
        is_empty = False
    if is_empty:
        typer.echo("There are no policies. `stillpoint policy apply -f FILE` writes some.", err=True)


@policy_app.command("show")
def show(policy: NameOrId, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """A policy with all its fields, as YAML that `apply` takes."""
    shown = service_at(url, token).get("policies", policy)
    typer.echo(json.dumps(shown, indent=2) if as_json else as_yaml(shown["document"]), nl=as_json)


@policy_app.command("diff")
def diff(file: Files, *, prune: Prune = False, url: Url = None, token: Token = None) -> None:
    """What `apply` would change. Exit code 0: nothing, 3: something, 1: an error."""
    steps = _steps(service_at(url, token), file, prune=prune)
    _show(steps)
    if any(step.is_change for step in steps):
        raise typer.Exit(Exit.not_done)


@policy_app.command("apply")
def apply(
    file: Files,
    *,
    prune: Prune = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show and check everything, and write nothing.")] = False,
    yes: Yes = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Write the policies of files: all of them, or none. Shows what changes, and asks. Exit code 3: you declined."""
    service = service_at(url, token)
    steps = _steps(service, file, prune=prune)
    changes = [step for step in steps if step.is_change]
    _show(steps)
    if not changes:
        typer.echo("Nothing changes.", err=True)
        return
    # The service checks all of them before anybody is asked.
    service.post("policies", "apply", body=_request(changes, dry_run=True))
    if dry_run:
        typer.echo("Nothing was written: this was a dry run.", err=True)
        return
    _ask("Write that?", yes=yes)
    for done in service.post("policies", "apply", body=_request(changes, dry_run=False))["policies"]:
        typer.echo(f"{done['name']} is {done['change']} (revision {done['revision']}).", err=True)


@policy_app.command("preview")
def preview(
    policy: Annotated[str | None, typer.Argument(metavar="[POLICY]", help="The name or the id of a policy on record.")] = None,
    *,
    file: Annotated[list[str] | None, typer.Option("--file", "-f", metavar="FILE", help="Preview the policies of these files.")] = None,
    days: Annotated[int, typer.Option(min=1, max=31, help="How many days from now on.")] = 7,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """The domains that a policy has or would have, its runs of the next week, and the load. Nothing is written."""
    if (policy is None) == (file is None):
        raise typer.BadParameter("Name either a policy, or a file with -f.")
    service = service_at(url, token)
    for shown in _previews(service, policy, file or [], {"days": str(days)}):
        if as_json:
            typer.echo(json.dumps(shown))
            continue
        for line in lines_of(shown):
            typer.echo(line)


@policy_app.command("pause")
def pause(policy: NameOrId, url: Url = None, token: Token = None) -> None:
    """Begin nothing of a policy until it is resumed. Jobs that run continue."""
    typer.echo(_line(service_at(url, token).post("policies", policy, "pause")))


@policy_app.command("resume")
def resume(policy: NameOrId, url: Url = None, token: Token = None) -> None:
    """Begin the runs of a paused policy again."""
    typer.echo(_line(service_at(url, token).post("policies", policy, "resume")))


@policy_app.command("delete")
def delete(policy: NameOrId, *, yes: Yes = False, url: Url = None, token: Token = None) -> None:
    """Remove a policy, and ask before. Its recovery points stay. Exit code 3: you declined."""
    service = service_at(url, token)
    shown = service.get("policies", policy)
    typer.echo(_line(shown))
    _ask("Remove it?", yes=yes)
    service.delete("policies", shown["id"], query={"revision": str(shown["revision"])})
    typer.echo(f"{shown['name']} is removed.", err=True)


def _steps(service: "Client", files: Sequence[str], *, prune: bool) -> list[Step]:
    # Imported here, as YAML is read by these commands only.
    from service.policy_files import read_files

    written = read_files(files)
    return steps_of([each.canonical() for each in written], list(service.items("policies")), prune=prune)


def _show(steps: Sequence[Step]) -> None:
    for step in steps:
        for line in diff_of(step):
            typer.echo(line)


def _request(changes: Sequence[Step], *, dry_run: bool) -> dict[str, Any]:
    """With the revisions that the differences were shown for: what was changed meanwhile is refused."""
    return {
        "policies": [{"document": step.wanted, "revision": step.revision} for step in changes if step.wanted is not None],
        "remove": [{"policy": step.name, "revision": step.revision} for step in changes if step.wanted is None],
        "dry_run": dry_run,
    }


def _previews(service: "Client", policy: str | None, files: Sequence[str], query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if policy is not None:
        yield service.post("policies", policy, "preview", query=query)
        return
    from service.policy_files import read_files

    for each in read_files(files):
        yield service.post("policies", "preview", body=each.canonical(), query=query)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask at: say --yes.")
    if not typer.confirm(question):
        raise typer.Exit(Exit.not_done)


def _line(policy: Mapping[str, Any]) -> str:
    paused = "paused" if policy["paused"] else "active"
    tracks = ", ".join(f"{track['name']} ({track['schedule']['cron']})" for track in policy["document"]["tracks"])
    return f"{policy['name']}  {paused}, revision {policy['revision']}, changed {policy['updated_at']}  {tracks}"
