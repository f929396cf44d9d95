"""Requests that cannot be served, and reasons why the service cannot run."""

from service.errors.base import StillpointError

# --- the thing that a request names does not exist ------------------------------------------------


class JobNotFound(StillpointError):
    code = "job_not_found"
    title = "No such job"
    detail_template = "Unknown job {job_id}."
    remedy_template = "List the jobs with GET /api/v1/jobs."


class RecoveryPointNotFound(StillpointError):
    code = "recovery_point_not_found"
    title = "No such recovery point"
    detail_template = "Unknown recovery point {recovery_point_id}."
    remedy_template = "List the recovery points with GET /api/v1/recovery-points."


class DomainUnknown(StillpointError):
    code = "domain_unknown"
    title = "No host has this domain"
    detail_template = "No domain has the name or UUID {domain!r} on {hosts}."
    remedy_template = (
        "GET /api/v1/domains shows the names. GET /api/v1/hosts shows when each host was last seen. A new domain appears within seconds."
    )


class HostUnknown(StillpointError):
    code = "host_unknown"
    title = "No such host"
    detail_template = "Unknown host {host}. No job waits for a host of this name."
    remedy_template = "GET /api/v1/hosts and `stillpoint host list` show the hosts."


class HostNotNamed(StillpointError):
    code = "host_not_named"
    title = "It is not clear which host is meant"
    detail_template = "The request names no host, and the known hosts are: {hosts}."
    remedy_template = 'Add "host" to the request.'


class DomainAmbiguous(StillpointError):
    code = "domain_ambiguous"
    title = "More than one host has a domain of this name"
    detail_template = "{domain!r} exists on the hosts {hosts}."
    remedy_template = 'Give the UUID instead of the name, or add "host" to the request.'


class DomainQueueFull(StillpointError):
    code = "domain_queue_full"
    title = "Too many jobs of this domain are waiting"
    detail_template = "{domain} has {limit} jobs that have not begun. This is the limit."
    remedy_template = (
        "Wait until some of the jobs have run, or cancel some of them (GET /api/v1/jobs?state=queued lists the jobs). "
        "GET /api/v1/hosts shows whether the host of the domain is alive. STILLPOINT_QUEUED_PER_DOMAIN sets the limit. "
        "A thaw is always accepted."
    )


class PathNotFound(StillpointError):
    code = "path_not_found"
    title = "Unknown path"
    detail_template = "Unknown path {path}."
    remedy_template = "GET /openapi.json lists every call. All calls but health, metrics and documentation start with /api/v1/."


class MethodNotAllowed(StillpointError):
    code = "method_not_allowed"
    title = "This path does not accept this method"
    detail_template = "{path} does not accept {method}."
    remedy_template = "The header Allow of this answer names the methods that the path accepts."


class TokenNotFound(StillpointError):
    code = "token_not_found"
    title = "No such token"
    detail_template = "Unknown token {token_id}."
    remedy_template = "`stillpoint token list` shows the ids."


# --- the request cannot be read -------------------------------------------------------------------


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
    remedy_template = "Correct the fields that facts.fields names. /docs shows every field with an example."


class BodyTooLarge(StillpointError):
    code = "body_too_large"
    title = "The body is too large"
    detail_template = "The request body is larger than {limit_bytes} bytes."
    remedy_template = "A job needs a few hundred bytes. Shorten the labels."


class CursorInvalid(StillpointError):
    code = "cursor_invalid"
    title = "The cursor is not valid"
    detail_template = "The cursor {cursor!r} cannot be read."
    remedy_template = "Send next_cursor of the previous page unchanged. Without a cursor the list starts at the newest entry."


class IdempotencyMismatch(StillpointError):
    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used for another request"
    detail_template = "The key {key!r} belongs to job {job_id}, which was created from another body."
    remedy_template = "Use a new Idempotency-Key for a new request. Send the same body again to get the same job."


# --- who is asking --------------------------------------------------------------------------------


class TokenMissing(StillpointError):
    code = "token_missing"
    title = "A bearer token is needed"
    detail_template = "The request has no Authorization: Bearer header."
    remedy_template = (
        "Send the token from the file that the service named at its first start, or make a token with `stillpoint token create`."
    )


class TokenRefused(StillpointError):
    code = "token_refused"
    title = "This bearer token is not valid"
    detail_template = "The token is unknown, was revoked, or has expired."
    remedy_template = "Make a token on the host with `stillpoint token create`. `stillpoint token list` shows the tokens."


class TokenFileUnwritable(StillpointError):
    code = "token_file_unwritable"
    title = "The file of the first token cannot be written"
    detail_template = "{path}: {reason}."
    remedy_template = "Set STILLPOINT_STATE_DIR to a folder that the service may write to. No token was stored. The next start tries again."


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
    remedy_template = "Only failed and cancelled jobs can be retried. Create a new job instead."


class DatabaseUnavailable(StillpointError):
    code = "database_unavailable"
    title = "The database cannot be reached"
    detail_template = "The database did not answer: {reason}."
    remedy_template = "Nothing was changed. Repeat the request in a few seconds. `stillpoint doctor` says what is wrong."


class DatabaseReplaced(DatabaseUnavailable):
    """A write would be lost, or would go to a database without the earlier jobs."""

    code = "database_replaced"
    title = "The database was replaced while the service ran"
    detail_template = "{what}. The service stopped writing."
    remedy_template = (
        "Stop the service, put the right database in its place (with SQLite its -wal and -shm too), and start the service again. "
        "The old database has everything that was recorded before."
    )


class DatabaseUnusable(DatabaseUnavailable):
    code = "database_unusable"
    title = "The database cannot be opened"
    detail_template = "{path}: {reason}."
    remedy_template = "Put a Stillpoint database there that this user may read and write, or correct STILLPOINT_DATABASE_URL."


class DatabaseLost(StillpointError):
    """The start ends with this error. A new, empty database would say that no recovery point was ever taken."""

    code = "database_lost"
    title = "The database of this state folder is gone"
    detail_template = "{database} {found}, but {traces} from an earlier start exist."
    remedy_template = (
        "Put the database back in its place (with SQLite its -wal and -shm too), or correct STILLPOINT_DATABASE_URL. "
        "Only if you want a new, empty database: rm -- {traces}. The tokens and the record of all recovery points are lost then."
    )


class DatabaseForeign(StillpointError):
    code = "database_foreign"
    title = "This state folder belongs to another database"
    detail_template = "{database} has the id {found}; {marker} says {known}."
    remedy_template = (
        "Put the right database in its place, or correct STILLPOINT_DATABASE_URL. Only if you want to use this database: rm -- {marker}."
    )


class SchemaOutdated(StillpointError):
    code = "schema_outdated"
    title = "The database schema does not fit this version"
    detail_template = "The database is at revision {found}. This version needs {needed}."
    remedy_template = "Run `stillpoint migrate`."


class SchemaUnknown(StillpointError):
    code = "schema_unknown"
    title = "The database was made by another version"
    detail_template = "The database is at revision {found}, which this version does not know. This version needs {needed}."
    remedy_template = (
        "Start the version that made the database, or restore a copy of the database from before the upgrade. Nothing was changed."
    )


class SettingInvalid(StillpointError):
    code = "setting_invalid"
    title = "A setting cannot be used"
    detail_template = "{setting}: {reason}."
    remedy_template = "Correct the setting. `stillpoint doctor` prints the settings in effect."


class WorkerAlreadyRuns(StillpointError):
    code = "worker_already_runs"
    title = "A worker of this host already runs"
    detail_template = "Another process has locked {lock}: the worker of host {host} already runs."
    remedy_template = (
        "One worker runs all jobs of a machine. Use the worker that runs, or stop that worker first (`systemctl status 'stillpoint*'` "
        "shows the worker). Two workers on the same guests would thaw each other's guests. "
        "STILLPOINT_JOBS_PER_HOST sets how many jobs run at once."
    )


class HostTaken(StillpointError):
    code = "host_taken"
    title = "Another worker has this host"
    detail_template = "{held_by} is the worker of host {host}. Its last sign of life was {seen_ago_s} s ago."
    remedy_template = (
        "Two machines must not have the same STILLPOINT_HOST_ID: give each machine its own, and run one worker on each. If the other "
        "worker is dead, this worker can start in {free_in_s} s. Under systemd this worker tries again by itself."
    )


class HostNotSilent(StillpointError):
    code = "host_not_silent"
    title = "The host may still be alive"
    detail_template = (
        "The last sign of life of the worker of host {host} was {seen_ago_s} s ago. "
        "The worker counts as dead after {silence_s} s without one."
    )
    remedy_template = (
        "Stop the worker of the host, or make sure that the machine is off, and try again in {free_in_s} s. "
        "A host that is alive recovers its jobs by itself."
    )
