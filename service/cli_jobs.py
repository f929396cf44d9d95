"""The commands that ask the service for a job and wait for it: `backup`, `restore`, `verify`, `remove`, `merge`, `job`."""

import json
import time
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service import cli_progress
from service.cli_progress import in_bytes, in_time
from service.model.repository import Compare, IdentityChoice, Level, ProofKind, RestoreMode, VerifyWhen
from service.model.requests import BackupRequest, MergeRequest, PruneRequest, RestoreRequest, VerifyRequest

if TYPE_CHECKING:
    from service.cli_client import Client

POLL_S = 0.5
"""Seconds between two looks at a job that a command waits for."""
FINAL = frozenset({"succeeded", "failed", "cancelled"})

Url = Annotated[str | None, typer.Option("--url", help="Where the service listens. Or STILLPOINT_URL. Left out: as its settings here say.")]
Token = Annotated[str | None, typer.Option("--token", help="Or STILLPOINT_TOKEN. Left out: the service's first token, if it is here.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the id of the job, and do not wait for its end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON.")]
Disks = Annotated[list[str] | None, typer.Option("--disk", help="A disk such as vda. Repeat it for several. Left out: all.")]
RateLimit = Annotated[int | None, typer.Option("--rate-limit-bytes", min=1, help="Bytes a second that may be read.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Repeat it for several.")]

MODES = (
    "new: a new domain. in_place: new disks below the domain that was backed up, which keeps its identity. "
    "files: the disks only, into --folder. instant: a new domain, started at once, whose disks are copied while it runs."
)

job_app = typer.Typer(help="Show a job, wait for it, or cancel it.", no_args_is_help=True)


class Check(StrEnum):
    """What a verify can check. The other proofs come from restores."""

    bytes = ProofKind.bytes.value
    structure = ProofKind.structure.value
    filesystem = ProofKind.filesystem.value


class Exit(IntEnum):
    """How a command ends that waited for a job. 1 also stands for every error, and 2 for wrong arguments."""

    succeeded = 0
    failed = 1
    cancelled = 3
    stopped_waiting = 130
    """Ctrl-C. The job continues."""


def add_to(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)
    app.command()(verify)
    app.command()(remove)
    app.command()(merge)
    app.add_typer(job_app, name="job")


def backup(
    domain: Annotated[str, typer.Argument(help="Name or UUID of the domain.")],
    *,
    repository: Annotated[str, typer.Option("--repository", "-r", help="Name or id of a registered repository.")],
    level: Annotated[Level, typer.Option(help="auto: each disk is incremental where that is right.")] = Level.auto,
    disk: Disks = None,
    compress: Annotated[bool, typer.Option("--compress", help="Store compressed (zstd).")] = False,
    compare: Annotated[Compare, typer.Option(help="What is read back and compared.")] = Compare.copied,
    required_verdict: Annotated[str | None, typer.Option(help="The lowest verdict that counts as success.")] = None,
    rate_limit_bytes: RateLimit = None,
    impact_limit_ms: Annotated[int | None, typer.Option(min=1, help="The guest's write latency above which the copy yields.")] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Retention never removes the point.")] = False,
    label: Labels = None,
    host: Annotated[str | None, typer.Option(help="If several hosts have a domain of this name.")] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Back up a domain into a repository, and wait until the point is sealed."""
    body: dict[str, Any] = {
        "kind": BackupRequest.kind.value,
        "domain": domain,
        "repository": repository,
        "level": level.value,
        "disks": disk,
        "compare": compare.value,
    }
    body |= {"required_verdict": required_verdict, "rate_limit_bytes": rate_limit_bytes, "impact_limit_ms": impact_limit_ms, "host": host}
    body |= {"compress": compress or None, "pinned": pinned or None, "labels": _labels(label)}
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


def restore(
    point: Annotated[str, typer.Argument(help="The id of a recovery point: see `stillpoint points`.")],
    *,
    mode: Annotated[RestoreMode, typer.Option(help=MODES)],
    disk: Disks = None,
    name: Annotated[str | None, typer.Option(help="The name of the new domain.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where the new disks are written. Left out: beside those of the definition.")] = None,
    identity: Annotated[IdentityChoice, typer.Option(help="UUID, MAC addresses and serial numbers.")] = IdentityChoice.auto,
    start: Annotated[bool, typer.Option("--start", help="Start the domain afterwards.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="In place: stop the domain if it runs.")] = False,
    accept_unsigned: Annotated[bool, typer.Option("--accept-unsigned", help="Restore a point that nobody has signed.")] = False,
    verify: Annotated[VerifyWhen, typer.Option(help="`before`: read every byte first, whatever proof is on record.")] = VerifyWhen.auto,
    accept_usn_risk: Annotated[bool, typer.Option("--accept-usn-risk", help="Restore a domain controller that would not notice.")] = False,
    remove_old_disks: Annotated[bool, typer.Option("--remove-old-disks", help="In place: once the new domain has run.")] = False,
    rate_limit_bytes: RateLimit = None,
    host: Annotated[str | None, typer.Option(help="Left out: the host of the point.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done, as JSON. Nothing is written.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Restore a point, and wait until its disks are whole. `--plan` shows before what is written where."""
    body: dict[str, Any] = {
        "kind": RestoreRequest.kind.value,
        "recovery_point": point,
        "mode": mode.value,
        "identity": identity.value,
        "disks": disk,
        "name": name,
    }
    body |= {"folder": folder, "host": host, "rate_limit_bytes": rate_limit_bytes, "start": start or None, "stop": stop or None}
    body |= {"accept_unsigned": accept_unsigned or None, "verify": verify.value if verify is not VerifyWhen.auto else None}
    body |= {"accept_usn_risk": accept_usn_risk or None, "remove_old_disks": remove_old_disks or None}
    service = service_at(url, token)
    if plan:
        _show_plan(service, {key: value for key, value in body.items() if value is not None and key != "kind"})
        return
    ask_and_wait(service, body, no_wait=no_wait, as_json=as_json)


def _show_plan(service: "Client", body: Mapping[str, Any]) -> None:
    plan = service.post("restores", "preview", body=body)
    if not plan.get("is_complete", True):
        typer.echo(f"job {plan['job']}", err=True)
        job = _shown_until_its_end(service, plan["job"])
        if job["state"] != "succeeded":
            _print(job, as_json=False)
            raise typer.Exit(Exit[job["state"]])
        plan = {**_plan_in(job), "job": job["id"], "is_complete": True}
    typer.echo(json.dumps(plan, indent=2))


def _plan_in(job: Mapping[str, Any]) -> dict[str, Any]:
    result = job.get("result") or {}
    return dict((result.get("restore") or {}).get("plan") or {})


def verify(
    point: Annotated[str, typer.Argument(help="The id of a recovery point: see `stillpoint points`.")],
    *,
    check: Annotated[list[Check] | None, typer.Option(help="Repeat it for several. Left out: bytes, structure, filesystem.")] = None,
    heal: Annotated[bool, typer.Option("--heal", help="Make bad files again where good copies of their bytes are found.")] = False,
    rate_limit_bytes: RateLimit = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Read every byte of a point and of all points that it needs, and put on record what was found. Exit code 1: it is damaged."""
    checks = [each.value for each in check] if check else None
    body: dict[str, Any] = {"kind": VerifyRequest.kind.value, "recovery_point": point, "checks": checks}
    body |= {"rate_limit_bytes": rate_limit_bytes, "heal": heal or None}
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


_MERGE_HELP = "First move what the points that stand on them need into those. Points beside a disk go in this way only."


def remove(
    points: Annotated[list[str], typer.Argument(metavar="POINT...", help="The ids of recovery points: see `stillpoint points`.")],
    *,
    with_needing: Annotated[bool, typer.Option("--with-needing", help="Remove all points that stand on them as well.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help=_MERGE_HELP)] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Remove points. A point on which others stand, that is pinned, or that is in use stays."""
    if merge and with_needing:
        raise typer.BadParameter("what stands on the points is either removed with them or kept", param_hint="--merge")
    body: dict[str, Any] = {"kind": PruneRequest.kind.value, "recovery_points": points, "with_needing": True if with_needing else None}
    if merge:
        body = {"kind": MergeRequest.kind.value, "recovery_points": points, "remove": True}
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


def merge(
    points: Annotated[list[str], typer.Argument(metavar="POINT...", help="The ids of recovery points: see `stillpoint points`.")],
    *,
    rate_limit_bytes: RateLimit = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Move what points hold into the points that stand on them. Nothing needs them then, and nothing is removed: see `remove --merge`."""
    body = {"kind": MergeRequest.kind.value, "recovery_points": points, "rate_limit_bytes": rate_limit_bytes}
    ask_and_wait(service_at(url, token), body, no_wait=no_wait, as_json=as_json)


@job_app.command("show")
def job_show(job_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a job as it is now."""
    _print(service_at(url, token).get("jobs", job_id), as_json=as_json)


@job_app.command("wait")
def job_wait(job_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Wait until a job has ended. Exit code 0: it succeeded, 1: it failed, 3: it was cancelled."""
    _wait(service_at(url, token), job_id, as_json=as_json)


@job_app.command("cancel")
def job_cancel(job_id: Annotated[str, typer.Argument(metavar="ID")], url: Url = None, token: Token = None) -> None:
    """Cancel a job. One that runs ends at its next safe point."""
    job = service_at(url, token).post("jobs", job_id, "cancel")
    typer.echo(f"{job['id']}  {job['state']}")


def service_at(url: str | None, token: str | None) -> "Client":
    # Imported here: what a client needs takes longer to import than the rest of a command that only shows its help.
    from service.cli_client import client

    return client(url, token)


def _labels(pairs: list[str] | None) -> dict[str, str] | None:
    if pairs is None:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--label")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def ask_and_wait(service: "Client", body: Mapping[str, Any], *, no_wait: bool, as_json: bool) -> None:
    """What is None is left out, so that the service chooses."""
    job = service.post("jobs", body={key: value for key, value in body.items() if value is not None})
    if no_wait:
        typer.echo(json.dumps(job, indent=2) if as_json else job["id"])
        return
    typer.echo(f"job {job['id']}", err=True)
    _wait(service, job["id"], as_json=as_json)


def _wait(service: "Client", job_id: str, *, as_json: bool) -> None:
    """Show the job until it has ended, print it, and exit as it ended."""
    try:
        job = _shown_until_its_end(service, job_id)
    except KeyboardInterrupt:
        typer.echo(f"The job continues. `stillpoint job wait {job_id}` waits again, `stillpoint job cancel {job_id}` ends it.", err=True)
        raise typer.Exit(Exit.stopped_waiting) from None
    _print(job, as_json=as_json)
    if job["state"] != "succeeded":
        raise typer.Exit(Exit[job["state"]])


def _shown_until_its_end(service: "Client", job_id: str) -> dict[str, Any]:
    with cli_progress.display() as display:
        while True:
            job = service.get_patiently("jobs", job_id)
            if job["state"] in FINAL:
                return job
            display.show(job)
            time.sleep(POLL_S)


def _print(job: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(job, indent=2))
        return
    typer.echo(f"{job['id']}  {job['kind']}  {job['state']}" + (f" ({job['phase']})" if job["phase"] else ""))
    for line in _facts_of(job):
        typer.echo(f"  {line}")
    if job.get("error") is not None:
        typer.echo(f"{job['error']['title']}: {job['error']['detail']}\n{job['error']['remedy']}", err=True)


def _facts_of(job: Mapping[str, Any]) -> list[str]:
    point, result = job.get("recovery_point"), job.get("result") or {}
    lines = [f"verdict {job['verdict']}"] if job.get("verdict") else []
    lines += [f"recovery point {point['id']}, {point['point_in_time_at']}"] if point else []
    for disk in (result.get("backup") or {}).get("disks") or ():
        sizes = f"{in_bytes(disk.get('copied_bytes'))} copied, {in_bytes(disk.get('stored_bytes'))} stored"
        lines.append(f"{disk['target']}: {disk['level']} ({disk['reason']}), {sizes}")
    for proof in (result.get("verify") or {}).get("proofs") or ():
        lines.append(f"{proof['kind']}: {_WORDS[proof['ok']]}")
    lines += _facts_of_merge(result.get("merge") or {})
    lines += _facts_of_prune(result.get("prune") or {})
    lines += _facts_of_restore(result.get("restore") or {})
    return lines + [f"{phase['name']}: {_duration(phase)}" for phase in job.get("phases") or () if phase["outcome"] == "warning"]


def _facts_of_merge(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{point['id']} took over {', '.join(point['points'])}: {in_bytes(point['bytes'])}, before {in_bytes(point['bytes_before'])}"
        for point in result.get("merged") or ()
    ]


def _facts_of_prune(result: Mapping[str, Any]) -> list[str]:
    lines = [f"removed {point['id']}, {in_bytes(point['freed_bytes'])}" for point in result.get("removed") or ()]
    return lines + [f"stays: {point['id']} ({point['reason']['detail']})" for point in result.get("stayed") or ()]


def _facts_of_restore(result: Mapping[str, Any]) -> list[str]:
    plan = result.get("plan") or {}
    lines = [f"domain {plan['domain']['name']}, {plan['domain']['id']}"] if plan.get("domain") else []
    lines += [f"warning: {warning['detail']}" for warning in plan.get("warnings") or ()]
    if result.get("reads_repository"):
        lines.append(f"still read from the repository: {', '.join(result['reads_repository'])}")
    if result.get("old_disks"):
        lines.append(f"the old disks are kept: {', '.join(result['old_disks'])}")
    return lines


def _duration(phase: Mapping[str, Any]) -> str:
    took = f"{in_time(phase['duration_ms'] / 1000)}" if phase.get("duration_ms") is not None else "not ended"
    return f"{phase['detail']} ({took})"


_WORDS = {True: "good", False: "not good", None: "cannot be told"}
