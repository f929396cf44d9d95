"""The command line: `stillpoint --help`."""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from service import cli_jobs, cli_settings, log
from service.cli_copy import copy_app
from service.cli_evidence import evidence_app
from service.cli_points import points
from service.cli_policy import policy_app
from service.cli_protection import protection
from service.cli_repository import repository_app
from service.cli_retention import retention_app
from service.errors import StillpointError

if TYPE_CHECKING:
    from service.db.engine import Database

app = typer.Typer(
    name="stillpoint",
    help="Backups of running KVM guests that can be trusted: frozen, taken, thawed, and recorded with evidence.\n\n"
    "Try `stillpoint all` on a machine with libvirt. No configuration is needed. `stillpoint doctor` shows every setting "
    "and says what is wrong on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
token_app = typer.Typer(help="Make, list and revoke the bearer tokens of the API.", no_args_is_help=True)
app.add_typer(token_app, name="token")
host_app = typer.Typer(help="List the hosts, and forget a host that never comes back.", no_args_is_help=True)
app.add_typer(host_app, name="host")
app.add_typer(repository_app, name="repository")
app.add_typer(copy_app)
app.add_typer(evidence_app, name="evidence")
app.add_typer(policy_app, name="policy")
app.add_typer(retention_app, name="retention")
cli_jobs.add_to(app)
app.command()(points)
app.command()(protection)


def main() -> None:
    """A StillpointError is shown as a message and a remedy. Any other exception is a bug and shows its traceback."""
    # As in the units: other users of the machine may not read the files of the service.
    os.umask(0o077)
    try:
        app()
    except StillpointError as error:
        _show(error)
        _end(1)
    except SystemExit as ended:
        _end(ended.code)


@app.command("all")
def run_everything() -> None:
    """Run API and worker in one process, the usual way on one host. Updates the database schema first."""
    from service import app as composition

    composition.run_all(cli_settings.configured(), typer.echo)


@app.command()
def serve() -> None:
    """Run the API only. For several hosts that share one PostgreSQL: each host then runs `stillpoint worker`."""
    from service import app as composition

    composition.run_serve(cli_settings.configured(), typer.echo)


@app.command()
def worker() -> None:
    """Run the worker only. It runs the jobs of this host's domains."""
    from service import app as composition

    composition.run_worker(cli_settings.configured(), typer.echo)


@app.command()
def migrate() -> None:
    """Update the database schema to this version. `stillpoint all` does this by itself."""
    from service.app import bring_up_to_date, open_database
    from service.db.url import shown

    settings = cli_settings.configured()
    database = open_database(settings)
    bring_up_to_date(settings, database)
    typer.echo(f"{shown(database.engine.url)} fits this version.")
    database.dispose()


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
) -> None:
    """Remove now what is older than the settings keep, as the service does once an hour. Recovery points are never touched."""
    from threading import Event

    from service.db.engine import database_now
    from service.scheduler.pruning import Pruning, due

    database = _migrated_database()
    with database.read() as session:
        all_due = due(cli_settings.settings(), database_now(session))
    pruning = Pruning(database, Event())
    counts = pruning.count(all_due) if dry_run else pruning.run(all_due)
    for each in all_due:
        typer.echo(f"{each.subject.name:<15} {counts[each.subject.name]:>9}  older than {each.before:%Y-%m-%d %H:%M}Z")
    typer.echo("Nothing was removed: this was a dry run." if dry_run else "All that is removed.", err=True)


@app.command()
def doctor() -> None:
    """Show the settings in effect (passwords masked), and check everything that a job needs. Exit code 1: a check fails."""
    from service.worker.doctor import effective_settings, examine
    from service.worker.finding import Health

    settings = cli_settings.settings()
    log.configure(settings.log_format, "error")
    for name, value in effective_settings(settings).items():
        typer.echo(f"{name}={value}")
    typer.echo("")
    failed = False
    for finding in examine(settings):
        typer.echo(f"{finding.health:<4}  {finding.subject}: {finding.detail}")
        if finding.remedy is not None:
            typer.echo(f"      -> {finding.remedy}")
        failed = failed or finding.health is Health.fail
    if failed:
        raise typer.Exit(1)


@app.command()
def thaw(domain: Annotated[str, typer.Argument(help="Name or UUID of a domain of this host.")]) -> None:
    """Thaw a guest now. Works without the API and without the database, and needs no token."""
    from service.jobs import emergency

    settings = cli_settings.settings()
    log.configure(settings.log_format, "error")
    result = emergency.thaw(settings.libvirt_uri, domain)
    before = {True: "was frozen", False: "was not frozen", None: "did not say whether it was frozen"}[result.was_frozen]
    did = f"{result.thawed} filesystems thawed" if result.thawed is not None else f"the agent answered: {result.message}"
    typer.echo(f"{result.domain} {before}; {did}.")
    if result.frozen_now:
        typer.echo("The agent still says that the guest is frozen.", err=True)
        raise typer.Exit(1)


@app.command()
def events(
    after: Annotated[int, typer.Option(min=0, max=2**63 - 1, metavar="ID", help="Only events after the event with this id.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for further events, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Every move of a job or a recovery point, oldest first. A reader that continues after the last id misses nothing."""
    from service.records import event_log

    with suppress(KeyboardInterrupt):
        for event in event_log.read(_migrated_database(), after, follow=follow):
            typer.echo(event_log.as_json(event) if as_json else event_log.as_line(event))


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="The person or program that will use the token.")],
    expires_days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until the token expires. Left out: never.")] = None,
) -> None:
    """Make a token and print the token once. Only a hash of the token is stored."""
    from service.db import tokens

    with _migrated_database().write() as session:
        new = tokens.create(session, name, timedelta(days=expires_days) if expires_days is not None else None)
    typer.echo(f"Token {new.id} ({name}), shown only now:", err=True)
    typer.echo(new.secret)


@token_app.command("list")
def token_list() -> None:
    """Every token, without its secret: id, first characters, name, state, last use."""
    from service.db import tokens

    with _migrated_database().read() as session:
        listed = tokens.list_all(session)
    for token in listed:
        used = f"used {token.last_used_at:%Y-%m-%d %H:%M}Z" if token.last_used_at is not None else "never used"
        typer.echo(f"{token.id}  {token.prefix}…  {_token_state(token.revoked_at, token.expires_at):<20}  {used:<23}  {token.name}")
    if not listed:
        typer.echo("There are no tokens. The first start of the service makes one.", err=True)


@token_app.command("revoke")
def token_revoke(token_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `stillpoint token list` shows.")]) -> None:
    """Revoke a token. Running services refuse the token within two seconds."""
    from service.db import tokens

    with _migrated_database().write() as session:
        revoked = tokens.revoke(session, token_id)
    typer.echo(f"{revoked.id} ({revoked.name}) is revoked.")


@host_app.command("list")
def host_list() -> None:
    """Every host: the last sign of life of its worker, and its jobs."""
    from service.records import host_list as hosts

    with _migrated_database().read() as session:
        lines = hosts.hosts(session)
    for host in lines:
        health = "silent" if host.is_silent else "alive"
        work = f"{host.running} jobs running, {host.queued} queued"
        typer.echo(f"{host.host_id}  {health}, last seen {host.seen_ago_s:.0f} s ago  {work}, {host.domains} domains")
    if not lines:
        typer.echo("No worker has reported yet.", err=True)


@host_app.command("forget")
def host_forget(host_id: Annotated[str, typer.Argument(metavar="ID", help="The name that `stillpoint host list` shows.")]) -> None:
    """End the jobs of a host that never comes back, and remove its domains from the list. Refused while its worker may be alive."""
    from service.records import forgotten_host

    with _migrated_database().write() as session:
        forgotten = forgotten_host.forget(session, host_id)
    typer.echo(f"{host_id} is forgotten, with {forgotten.domains} domains. {forgotten.jobs_cancelled} queued jobs are cancelled.")
    for job_id in forgotten.jobs_failed:
        typer.echo(f"Job {job_id} ran there and has failed. GET /api/v1/jobs/{job_id} says what to check.")


def _migrated_database() -> "Database":
    """Raises SchemaOutdated for a database whose schema does not fit, such as one that was never migrated."""
    from service.app import check_database, open_database

    settings = cli_settings.configured()
    database = open_database(settings)
    check_database(settings, database)
    return database


def _token_state(revoked_at: datetime | None, expires_at: datetime | None) -> str:
    if revoked_at is not None:
        return "revoked"
    if expires_at is None:
        return "valid"
    return "expired" if expires_at <= datetime.now(UTC) else f"valid to {expires_at:%Y-%m-%d}"


def _show(error: StillpointError) -> None:
    typer.echo(f"{error.title}: {error.detail}\n{error.remedy}", err=True)


def _end(code: int | str | None) -> NoReturn:
    """Exit. If calls hang inside libvirt, exit at once: the normal end of the interpreter would wait for their threads."""
    from service.deadlines import HELPERS

    if HELPERS.left_behind() and not isinstance(code, str):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    main()
