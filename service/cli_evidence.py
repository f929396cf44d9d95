"""The command about evidence: `stillpoint evidence verify`. It needs no service, no database and no libvirt."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli_progress import in_bytes

if TYPE_CHECKING:
    from service.repository.evidence import Finding
    from service.repository.hand import Progress

evidence_app = typer.Typer(help="Check what a sealed point says of itself, without the service.", no_args_is_help=True)
WORDS = {True: "good", False: "BAD", None: "not checked"}


@evidence_app.callback()
def evidence() -> None:
    """Check what a sealed point says of itself, without the service."""


@evidence_app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of a point: REPOSITORY/domains/DOMAIN/POINT.")],
    *,
    key: Annotated[
        str | None, typer.Option(help="file:/path or command:program, for the content of encrypted images. Stored bytes need no key.")
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(help="A public key (REPOSITORY/keys/ID.pub) that may have signed. Repeat it. Left out: any key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check signature, manifest, every byte, and the points that this one inherits from. Exit code 1: something is bad."""
    from service.repository.evidence import check_folder, is_good
    from service.repository.keys import Key

    with _progress() as on_progress:
        trusted = _trusted(trust) if trust else None
        findings = check_folder(folder, Key(key, is_operators=True) if key is not None else None, trusted=trusted, on_progress=on_progress)
    for finding in findings:
        typer.echo(
            _as_json(finding) if as_json else f"{WORDS[finding.is_good]:<11}  {finding.subject:<9}  {finding.place}: {finding.detail}"
        )
    good = is_good(findings)
    if not as_json:
        typer.echo(_conclusion(findings, trusted) if good else "The point is BAD.", err=True)
    if not good:
        raise typer.Exit(1)


def _conclusion(findings: "Sequence[Finding]", trusted: dict[str, bytes] | None) -> str:
    if trusted is not None:
        return "The point is good, and signed by a key that you trust."
    keys = ", ".join(sorted({finding.key_id for finding in findings if finding.key_id is not None}))
    return f"The point is whole. It is signed by key {keys}, which was not compared with a key that you trust: name that with --trust."


def _as_json(finding: "Finding") -> str:
    return json.dumps(asdict(finding))


def _trusted(files: list[Path]) -> dict[str, bytes]:
    from service.repository import signing

    keys = {}
    for file in files:
        try:
            public = signing.public_key(file.read_text())
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{file}: {error}", param_hint="--trust") from error
        keys[signing.key_id(public)] = public
    return keys


@contextmanager
def _progress() -> Iterator[Callable[["Progress"], None] | None]:
    """A bar on a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    # Imported here, because it takes longer than the rest of the command.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("reading"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None, words="")

        def show(progress: "Progress") -> None:
            total = progress.total_bytes
            bars.update(task, total=total, completed=progress.done_bytes, words=f"{in_bytes(progress.done_bytes)} of {in_bytes(total)}")

        yield show
