"""Rows as JSON text, written by the database itself.

Most of a job is JSON already. Reading it into Python objects only to write it out again would cost most of a
request, so the database splices the stored texts together and the API passes on what it gets.
"""

import sqlite3
from typing import Any

from sqlalchemy import Boolean, LargeBinary, Text, case, cast, func, literal, not_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import GenericFunction

from service.db.tables import Job, RawText, RecoveryPoint
from service.model.lifecycle import FINAL_STATES

BETWEEN_ITEMS = ",\n"
"""Valid between the items of a JSON array, and never inside one: a line feed in a string is escaped."""


class json_string(GenericFunction[str]):
    """A text column as a JSON string, or null."""

    type = Text()
    inherit_cache = True


class json_time(GenericFunction[str]):
    """A UTC time as an RFC 3339 JSON string, or null."""

    type = Text()
    inherit_cache = True


class json_or_null(GenericFunction[str]):
    """A stored JSON text or a number as it is, or null."""

    type = Text()
    inherit_cache = True


class text_format(GenericFunction[str]):
    """printf of SQLite, format of PostgreSQL: `%s` in both."""

    type = Text()
    inherit_cache = True


class joined(GenericFunction[bytes]):
    """The texts of all rows as UTF-8 with BETWEEN_ITEMS between them; the further columns say in which order, the highest first."""

    type = LargeBinary()
    inherit_cache = True


class members(GenericFunction[str]):
    """The members of JSON objects, as one text, with a comma after each; null where there are none."""

    type = Text()
    inherit_cache = True


class contains(GenericFunction[bool]):
    """Whether the second text stands somewhere in the first."""

    type = Boolean()
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


@compiles(json_or_null, "sqlite")
def _(element: json_or_null, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce({compiler.process(element.clauses, **kw)}, 'null')"


@compiles(json_or_null, "postgresql")
def _(element: json_or_null, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce(CAST({compiler.process(element.clauses, **kw)} AS TEXT), 'null')"


@compiles(text_format, "sqlite")
def _(element: text_format, compiler: SQLCompiler, **kw: Any) -> str:
    return f"printf({compiler.process(element.clauses, **kw)})"


@compiles(text_format, "postgresql")
def _(element: text_format, compiler: SQLCompiler, **kw: Any) -> str:
    return f"format({compiler.process(element.clauses, **kw)})"


@compiles(joined, "sqlite")
def _(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    text, *keys = (compiler.process(clause, **kw) for clause in element.clauses)
    # Before 3.44 it knows no order here, and takes the rows as the subquery gives them.
    order = _highest_first(keys) if sqlite3.sqlite_version_info >= (3, 44) else ""
    return f"CAST(group_concat({text}, ',' || char(10){order}) AS BLOB)"


@compiles(joined, "postgresql")
def _(element: joined, compiler: SQLCompiler, **kw: Any) -> str:
    text, *keys = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"convert_to(string_agg({text}, ',' || chr(10){_highest_first(keys)}), 'UTF8')"


@compiles(members, "sqlite")
def _(element: members, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)} || ',', '')"


@compiles(members, "postgresql")
def _(element: members, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)} || ',', '')"


def _highest_first(keys: list[str]) -> str:
    return f" ORDER BY {', '.join(f'{key} DESC' for key in keys)}"


@compiles(contains, "sqlite")
def _(element: contains, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}) > 0"


@compiles(contains, "postgresql")
def _(element: contains, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}) > 0"


def _flag(column: Any) -> ColumnElement[str]:
    return case((column, "true"), else_="false")


def _known_flag(column: Any) -> ColumnElement[str]:
    # Without IS NULL: after RETURNING, SQLite 3.40 takes that for false.
    return case((column, "true"), (not_(column), "false"), else_="null")


def document_of(fields: dict[str, Any]) -> ColumnElement[str]:
    """One JSON object from texts that are JSON already, further objects, and (pattern, column) for a string around a plain value.

    A column given as it is must be JSON or a number, and never null.
    """
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


_JOB_FIELDS: dict[str, Any] = {
    "id": ("%s", Job.id),
    "kind": ("%s", Job.kind),
    "domain": {"id": json_string(Job.domain_id), "name": json_string(Job.domain_name)},
    "host": json_string(Job.host_id),
    "state": ("%s", Job.state),
    "phase": json_string(Job.phase),
    "attempt": Job.attempt,
    "max_attempts": Job.max_attempts,
    "created_at": json_time(Job.created_at),
    "started_at": json_time(Job.started_at),
    "finished_at": json_time(Job.finished_at),
    "cancel_requested": _flag(Job.cancel_requested),
    "retry_of": json_string(Job.retry_of),
    "labels": Job.labels,
    "request": Job.request,
    "verdict": json_string(Job.verdict),
    "verdict_reasons": Job.verdict_reasons,
    "vss_outcome": json_string(Job.vss_outcome),
    "writer_failed": _known_flag(Job.writer_failed),
    "freeze": json_or_null(Job.freeze),
    "timing": json_or_null(Job.timing),
    "phases": Job.phases,
    "recovery_point": json_or_null(Job.recovery_point),
    "result": json_or_null(Job.result),
    "error": json_or_null(Job.error),
    "links": {"self": ("/api/v1/jobs/%s", Job.id), "explain": ("/api/v1/jobs/%s/explain", Job.id)},
}


def _evidence() -> ColumnElement[str]:
    """The facts, which are in the row of the job, and before them the raw texts, each a row of its own."""
    member = literal('"') + RawText.name + literal('":') + cast(RawText.document, Text)
    texts = select(members(member)).where(RawText.job_id == Job.id).correlate(Job).scalar_subquery()
    facts = cast(Job.evidence, Text)
    return func.coalesce(literal("{") + texts + func.substr(facts, 2), facts, "null", type_=Text())


_WHOLE = {"vss": json_or_null(Job.vss), "auto_recovery": json_or_null(Job.auto_recovery), "evidence": _evidence()}
JOB_DOCUMENT = document_of({**_JOB_FIELDS, **_WHOLE})
JOB_SUMMARY = document_of(_JOB_FIELDS)
"""As it stands in a list: without the record of VSS and the evidence, which is most of a job and is read one job at a time."""

JOB_VERSION = Job.id + " " + Job.state + " " + cast(Job.updated_at, Text) + ";"
"""Names a job as it was written last. In a final state no job changes any more, so then it stands for the documents, too."""

RECOVERY_POINT_DOCUMENT = document_of(
    {
        "id": ("%s", RecoveryPoint.id),
        "job_id": ("%s", RecoveryPoint.job_id),
        "kind": ("%s", RecoveryPoint.kind),
        "domain": {"id": ("%s", RecoveryPoint.domain_id), "name": json_string(RecoveryPoint.domain_name)},
        "host": json_string(RecoveryPoint.host_id),
        "created_at": json_time(RecoveryPoint.created_at),
        "point_in_time_at": json_time(RecoveryPoint.point_in_time_at),
        "verdict": ("%s", RecoveryPoint.verdict),
        "labels": RecoveryPoint.labels,
        "disks": RecoveryPoint.disks,
        "size_bytes": json_or_null(RecoveryPoint.size_bytes),
        "links": {"self": ("/api/v1/recovery-points/%s", RecoveryPoint.id), "job": ("/api/v1/jobs/%s", RecoveryPoint.job_id)},
    }
)


def is_final(version: bytes) -> bool:
    return version.split(b" ", 2)[1].decode() in FINAL_STATES


def key_of(document: bytes) -> tuple[str, str]:
    """(created_at, id) of a document made above: read by their places, because parsing it all costs as much as the query.

    A quote inside a string is escaped, so the first `"created_at":"` is the field itself.
    """
    start = document.index(_CREATED_AT) + len(_CREATED_AT)
    return document[start : document.index(b'"', start)].decode(), document[_ID : document.index(b'"', _ID)].decode()


_CREATED_AT = b'"created_at":"'
_ID = len(b'{"id":"')
