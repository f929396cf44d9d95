"""Requests that cannot be served: what is not there, cannot be read, or may not be asked; and what stands in the way of the service."""

from service.errors.base import StillpointError

# --- what a caller asked for does not exist -------------------------------------------------------


class JobNotFound(StillpointError):
    code = "job_not_found"
    title = "No such job"
    detail_template = "There is no job {job_id}."
    remedy_template = "List the jobs with GET /api/v1/jobs."


class RecoveryPointNotFound(StillpointError):
    code = "recovery_point_not_found"
    title = "No such recovery point"
    detail_template = "There is no recovery point {recovery_point_id}."
    remedy_template = "List them with GET /api/v1/recovery-points."


class DomainUnknown(StillpointError):
    code = "domain_unknown"
    title = "No host has this domain"
    detail_template = "No domain named {domain!r} (nor with that UUID) was published by {hosts}."
    remedy_template = (
        "Look at GET /api/v1/domains for the names, and at GET /api/v1/hosts for when each host was last seen. "
        "A domain that was only just defined appears within seconds."
    )


class HostUnknown(StillpointError):
    code = "host_unknown"
    title = "No such host"
    detail_template = "There is no host {host}, and no job waits for one of this name."
    remedy_template = "GET /api/v1/hosts and `stillpoint host list` show the hosts."


class DomainAmbiguous(StillpointError):
    code = "domain_ambiguous"
    title = "More than one host has a domain of this name"
    detail_template = "{domain!r} exists on the hosts {hosts}."
    remedy_template = 'Give the UUID instead of the name, or add "host" to the request.'


class DomainQueueFull(StillpointError):
    code = "domain_queue_full"
    title = "Too many jobs of this domain are waiting"
    detail_template = "{domain} has {limit} jobs that have not begun, and no more are taken."
    remedy_template = (
        "Wait until some have run, or cancel them (GET /api/v1/jobs?state=queued lists them); look at GET /api/v1/hosts for whether its "
        "host runs any. STILLPOINT_QUEUED_PER_DOMAIN is the limit. A thaw is always taken."
    )


class PathNotFound(StillpointError):
    code = "path_not_found"
    title = "There is nothing at this path"
    detail_template = "{path} is no path of this service."
    remedy_template = "GET /openapi.json lists every call; all of them but health, metrics and documentation start with /api/v1/."


class MethodNotAllowed(StillpointError):
    code = "method_not_allowed"
    title = "This path does not answer to this method"
    detail_template = "{path} does not answer to {method}."
    remedy_template = "The header Allow of this answer names the methods that it knows."


class TokenNotFound(StillpointError):
    code = "token_not_found"
    title = "No such token"
    detail_template = "There is no token {token_id}."
    remedy_template = "`stillpoint token list` shows the ids."


# --- what a caller asked for cannot be read -------------------------------------------------------


class UnsupportedMediaType(StillpointError):
    code = "unsupported_media_type"
    title = "The body is not sent as JSON"
    detail_template = "The request has a body with Content-Type {content_type!r}."
    remedy_template = "Send Content-Type: application/json (curl: -H 'Content-Type: application/json')."


class MalformedJson(StillpointError):
    code = "malformed_json"
    title = "The body is not JSON"
    detail_template = "The request body could not be read as JSON: {reason}."
    remedy_template = "Send one JSON object, with Content-Type: application/json."


class ValidationFailed(StillpointError):
    code = "validation_failed"
    title = "The request is not valid"
    detail_template = "{count} field(s) were refused: {summary}."
    remedy_template = "Correct the fields named in facts.fields; /docs shows every field with an example."


class BodyTooLarge(StillpointError):
    code = "body_too_large"
    title = "The body is too large"
    detail_template = "The request body is larger than {limit_bytes} bytes."
    remedy_template = "A job fits in a few hundred bytes; shorten the labels."


class CursorInvalid(StillpointError):
    code = "cursor_invalid"
    title = "The cursor is not one that was given out"
    detail_template = "The cursor {cursor!r} cannot be read."
    remedy_template = "Use next_cursor of the page before unchanged, or leave cursor out to start at the newest."


class IdempotencyMismatch(StillpointError):
    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used for another request"
    detail_template = "The key {key!r} belongs to job {job_id}, which was created from another body."
    remedy_template = "Use a new Idempotency-Key for a new request; repeat the same body to get the same job."


# --- who is asking --------------------------------------------------------------------------------


class TokenMissing(StillpointError):
    code = "token_missing"
    title = "A bearer token is needed"
    detail_template = "The request has no Authorization: Bearer header."
    remedy_template = "Send the token of the file that the service printed at its first start, or make one with `stillpoint token create`."


class TokenRefused(StillpointError):
    code = "token_refused"
    title = "This bearer token is not valid"
    detail_template = "The token is not known, was revoked, or has expired."
    remedy_template = "Make one on the host with `stillpoint token create`, and look at `stillpoint token list`."


class TokenFileUnwritable(StillpointError):
    code = "token_file_unwritable"
    title = "The file of the first token cannot be written"
    detail_template = "{path}: {reason}."
    remedy_template = "Give the service a STILLPOINT_STATE_DIR that it may write to. No token was stored; the next start tries again."


# --- what cannot be done now ----------------------------------------------------------------------


class CancelRefused(StillpointError):
    code = "cancel_refused"
    title = "This job cannot be cancelled"
    detail_template = "Job {job_id} is {state}: {reason}."
    remedy_template = "Only jobs that are queued or running can be cancelled."


class RetryRefused(StillpointError):
    code = "retry_refused"
    title = "This job cannot be retried"
    detail_template = "Job {job_id} is {state}: {reason}."
    remedy_template = "Only failed and cancelled jobs can be retried; create a new job instead."


class DatabaseUnavailable(StillpointError):
    code = "database_unavailable"
    title = "The database cannot be reached"
    detail_template = "The database did not answer: {reason}."
    remedy_template = "Nothing was changed. Repeat the request in a few seconds; `stillpoint doctor` says what is wrong."


class DatabaseReplaced(DatabaseUnavailable):
    """What is written now would be lost, or stand in a database that knows nothing of what went before."""

    code = "database_replaced"
    title = "The database is not the one that the service began with"
    detail_template = "{what}, and nothing is written any more."
    remedy_template = (
        "Stop the service, put the right database in its place (with SQLite its -wal and -shm too), and start the service again. "
        "What was recorded until then is in the old one."
    )


class DatabaseUnusable(DatabaseUnavailable):
    code = "database_unusable"
    title = "The database cannot be opened"
    detail_template = "{path}: {reason}."
    remedy_template = "Put a database of Stillpoint there that this user may read and write, or correct STILLPOINT_DATABASE_URL."


class DatabaseLost(StillpointError):
    """Found at the start: to go on would make a new, empty database, and whoever asks it would believe that there never was a point."""

    code = "database_lost"
    title = "The database of this state folder is gone"
    detail_template = "{database} {found}, but {traces} of an earlier start are there."
    remedy_template = (
        "Put the database back in its place (with SQLite its -wal and -shm too), or correct STILLPOINT_DATABASE_URL. "
        "Only if a new, empty database is really meant: rm -- {traces}. The tokens and the record of all points are lost with the old one."
    )


class DatabaseForeign(StillpointError):
    code = "database_foreign"
    title = "This state folder belongs to another database"
    detail_template = "{database} has the id {found}; {marker} says {known}."
    remedy_template = (
        "Put the right database in its place, or correct STILLPOINT_DATABASE_URL. Only if this database is really meant: rm -- {marker}."
    )


class SchemaOutdated(StillpointError):
    code = "schema_outdated"
    title = "The database schema does not fit this version"
    detail_template = "The database is at revision {found}, this version needs {needed}."
    remedy_template = "Run `stillpoint migrate`."


class SchemaUnknown(StillpointError):
    code = "schema_unknown"
    title = "The database was made by another version"
    detail_template = "The database is at revision {found}, which this version does not know; it needs {needed}."
    remedy_template = "Start the version that made it, or restore a copy of the database from before the upgrade. Nothing was changed."


class SettingInvalid(StillpointError):
    code = "setting_invalid"
    title = "A setting cannot be used"
    detail_template = "{setting}: {reason}."
    remedy_template = "Correct it; `stillpoint doctor` prints the effective settings."


class WorkerAlreadyRuns(StillpointError):
    code = "worker_already_runs"
    title = "A worker of this host already runs"
    detail_template = "{lock} is locked by another process: the worker of host {host} is already running."
    remedy_template = (
        "One worker runs all jobs of a machine: use the one that is there, or stop it first (`systemctl status 'stillpoint*'` shows it). "
        "Two of them on the same guests would undo each other's freezes, whatever they are called. "
        "For more jobs at once: STILLPOINT_JOBS_PER_HOST."
    )


class HostTaken(StillpointError):
    code = "host_taken"
    title = "Another worker has this host"
    detail_template = "{held_by} is the worker of host {host}: it was heard of {seen_ago_s} s ago."
    remedy_template = (
        "Two machines must not have the same STILLPOINT_HOST_ID: give each its own, and run one worker on each. If the other one is dead, "
        "this one can start in {free_in_s} s; under systemd it tries again by itself."
    )


class HostNotSilent(StillpointError):
    code = "host_not_silent"
    title = "The host may still be alive"
    detail_template = "The worker of host {host} was heard of {seen_ago_s} s ago. It counts as dead only after a silence of {silence_s} s."
    remedy_template = (
        "Stop its worker, or make sure that the machine is off, and try again in {free_in_s} s. "
        "A host that is alive puts its jobs in order by itself."
    )
