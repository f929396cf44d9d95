"""The texts of jobs and recovery points as the API passes them on, joined to a page by the database itself.

What the texts tell stands in `service.model.documents`.
"""

import sqlite3
from typing import Any

from sqlalchemy import LargeBinary, Text, cast, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from service.db.tables import JobDocument, RawText
from service.model.documents import text_of_job

BETWEEN_ITEMS = ",\n"
"""Valid between the items of a JSON array, and never inside one: a line feed in a string is escaped."""


class joined(GenericFunction[bytes]):
    """The texts of all rows as UTF-8 with BETWEEN_ITEMS between them; the further columns say in which order, the highest first."""

    type = LargeBinary()
    inherit_cache = True


class listed(GenericFunction[str]):
    """The texts of all rows with commas between them; null where there are none."""

    type = Text()
    inherit_cache = True


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


def _highest_first(keys: list[str]) -> str:
    return f" ORDER BY {', '.join(f'{key} DESC' for key in keys)}"


@compiles(listed, "sqlite")
def _(element: listed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)}, ',')"


@compiles(listed, "postgresql")
def _(element: listed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)}, ',')"


_MEMBER = literal('"') + RawText.name + literal('":') + cast(RawText.document, Text)
_RAW_TEXTS = select(listed(_MEMBER)).where(RawText.job_id == JobDocument.job_id).correlate(JobDocument).scalar_subquery()
ONE_JOB = select(JobDocument.entry, JobDocument.details, _RAW_TEXTS)
"""What `text_of_job` takes."""


def document_of_job(session: Session, job_id: str) -> str | None:
    row = session.execute(ONE_JOB.where(JobDocument.job_id == job_id)).first()
    return text_of_job(*row) if row is not None else None


def key_of(document: bytes) -> tuple[str, str]:
    """(created_at, id) of a text: read by their places, because parsing it all costs as much as the query.

    A quote inside a string is escaped, so the first `"created_at":"` is the field itself.
    """
    start = document.index(_CREATED_AT) + len(_CREATED_AT)
    return document[start : document.index(b'"', start)].decode(), document[_ID : document.index(b'"', _ID)].decode()


_CREATED_AT = b'"created_at":"'
_ID = len(b'{"id":"')
