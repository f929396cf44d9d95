"""Rows as JSON text, written by the database itself.

Most of a job is JSON already. Reading it into Python objects only to write it out again would cost most of a
request, so the database splices the stored texts together and the API passes on what it gets.
"""

from typing import Any

from sqlalchemy import Text, case, cast, func, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import GenericFunction

from service.db.tables import Job, RecoveryPoint

SEPARATOR = "\x1e"
"""ASCII record separator: JSON text never holds it unescaped, so a page can be cut into its items."""


class json_string(GenericFunction[str]):  # noqa: N801 - named as in SQL
    """A text column as a JSON string, or null."""

    type = Text()
    inherit_cache = True


class json_time(GenericFunction[str]):  # noqa: N801
    """A UTC time as an RFC 3339 JSON string, or null."""

    type = Text()
    inherit_cache = True


class text_format(GenericFunction[str]):  # noqa: N801
    """printf of SQLite, format of PostgreSQL: `%s` in both."""

    type = Text()
    inherit_cache = True


class joined(GenericFunction[str]):
    """The texts of all rows, in their order, with a separator between them."""

    type = Text()
    inherit_cache = True


@compiles(json_string, "sqlite")
def _(element: json_string, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_quote({compiler.process(element.clauses, **kw)})"


@compiles(json_string, "postgresql")
def _(element: json_string, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce(to_json(CAST({compiler.process(element.clauses, **kw)} AS TEXT))::TEXT, 'null')"


@compiles(json_time, "sqlite")
def _(element: json_time, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce('\"' || replace({compiler.process(element.clauses, **kw)}, ' ', 'T') || 'Z\"', 'null')"


@compiles(json_time, "postgresql")
def _(element: json_time, compiler: SQLCompiler, **kw: Any) -> str:
    shape = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    column = compiler.process(element.clauses, **kw)
    return f"coalesce('\"' || to_char({column} AT TIME ZONE 'UTC', '{shape}') || '\"', 'null')"


@compiles(text_format, "sqlite")
def _(element: text_format, compiler: SQLCompiler, **kw: Any) -> str:
    return f"printf({compiler.process(element.clauses, **kw)})"


@compiles(text_format, "postgresql")
def _(element: text_format, compiler: SQLCompiler, **kw: Any) -> str:
    return f"format({compiler.process(element.clauses, **kw)})"


@compiles(joined, "sqlite")
def _(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)})"


@compiles(joined, "postgresql")
def _(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)})"


def _json(column: Any) -> ColumnElement[str]:
    """A stored JSON text as it is, or null."""
    return func.coalesce(cast(column, Text), "null")


def _flag(column: Any) -> ColumnElement[str]:
    return case((column, "true"), else_="false")


def _number(column: Any) -> ColumnElement[str]:
    return func.coalesce(cast(column, Text), "null")


def document_of(fields: dict[str, Any]) -> ColumnElement[str]:
    """One JSON object: values are SQL texts, further objects, or (pattern, column) for a text around a column."""
    pattern, arguments = _flattened(fields)
    return text_format(literal(pattern), *arguments)


def _flattened(fields: dict[str, Any]) -> tuple[str, list[Any]]:
    parts: list[str] = []
    arguments: list[Any] = []
    for name, value in fields.items():
        pattern, inner = "%s", [value]
        if isinstance(value, dict):
            pattern, inner = _flattened(value)
        elif isinstance(value, tuple):
            pattern, inner = f'"{value[0]}"', [value[1]]
        parts.append(f'"{name}":{pattern}')
        arguments.extend(inner)
    return "{" + ",".join(parts) + "}", arguments


JOB_DOCUMENT = document_of(
    {
        "id": json_string(Job.id),
        "kind": json_string(Job.kind),
        "domain": {"id": json_string(Job.domain_id), "name": json_string(Job.domain_name)},
        "host": json_string(Job.host_id),
        "state": json_string(Job.state),
        "phase": json_string(Job.phase),
        "attempt": _number(Job.attempt),
        "max_attempts": _number(Job.max_attempts),
        "created_at": json_time(Job.created_at),
        "started_at": json_time(Job.started_at),
        "finished_at": json_time(Job.finished_at),
        "cancel_requested": _flag(Job.cancel_requested),
        "retry_of": json_string(Job.retry_of),
        "labels": _json(Job.labels),
        "request": _json(Job.request),
        "verdict": json_string(Job.verdict),
        "verdict_reasons": _json(Job.verdict_reasons),
        "freeze": _json(Job.freeze),
        "timing": _json(Job.timing),
        "phases": _json(Job.phases),
        "recovery_point": _json(Job.recovery_point),
        "result": _json(Job.result),
        "error": _json(Job.error),
        "evidence": _json(Job.evidence),
        "links": {"self": ("/api/v1/jobs/%s", Job.id), "explain": ("/api/v1/jobs/%s/explain", Job.id)},
    }
)

RECOVERY_POINT_DOCUMENT = document_of(
    {
        "id": json_string(RecoveryPoint.id),
        "job_id": json_string(RecoveryPoint.job_id),
        "kind": json_string(RecoveryPoint.kind),
        "domain": {"id": json_string(RecoveryPoint.domain_id), "name": json_string(RecoveryPoint.domain_name)},
        "host": json_string(RecoveryPoint.host_id),
        "created_at": json_time(RecoveryPoint.created_at),
        "point_in_time_at": json_time(RecoveryPoint.point_in_time_at),
        "verdict": json_string(RecoveryPoint.verdict),
        "labels": _json(RecoveryPoint.labels),
        "disks": _json(RecoveryPoint.disks),
        "size_bytes": _number(RecoveryPoint.size_bytes),
        "links": {"self": ("/api/v1/recovery-points/%s", RecoveryPoint.id), "job": ("/api/v1/jobs/%s", RecoveryPoint.job_id)},
    }
)
