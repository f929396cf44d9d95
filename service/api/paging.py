"""Keyset paging: a page is a range of an index, never an offset, so it costs the same at any depth and size."""

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from fastapi import Response
from sqlalchemy import Select, func, literal_column, select

from service.api.documents import BETWEEN_ITEMS, joined, key_of
from service.db.postgresql import Row
from service.db.reader import Parameters, Reader, Statement
from service.errors import CursorInvalid

BETWEEN = BETWEEN_ITEMS.encode()


def statement_of_page(rows: Select[*tuple[Any, ...]], limit: int) -> Statement:
    """From a select of texts, newest first, and the two columns of that order: the texts of one page, joined, and how many they are."""
    # One text more than the caller asked for shows whether there is a next page. The number stands in the statement. PostgreSQL takes
    # a parameter for a tenth of the table. With a large table, PostgreSQL would plan the statement again for each page.
    text, created_at, identifier = rows.limit(literal_column(str(limit + 1))).subquery().c
    return Statement(select(joined(text, created_at, identifier), func.count()))


async def page_response(reader: Reader, statement: Statement, parameters: Parameters, limit: int) -> Response:
    body = await reader.made(statement, parameters, partial(_body, limit))
    return Response(body, media_type="application/json")


def _body(limit: int, row: Row | None) -> bytes:
    assert row is not None
    items, count = bytes(row[0] or b""), row[1]
    cursor = b"null"
    if count > limit:
        items = items.rpartition(BETWEEN)[0]
        cursor = b'"%s"' % encode_cursor(*key_of(items.rpartition(BETWEEN)[2])).encode()
    return b'{"items":[%s],"next_cursor":%s}' % (items, cursor)


def encode_cursor(*key: str) -> str:
    return base64.urlsafe_b64encode("\n".join(key).encode()).decode().rstrip("=")


@lru_cache(maxsize=256)
def decode_cursor(cursor: str) -> tuple[str, ...]:
    """Raises CursorInvalid."""
    try:
        return tuple(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().split("\n"))
    except (binascii.Error, ValueError) as error:
        raise CursorInvalid(cursor=cursor) from error


def decode_time_cursor(cursor: str) -> tuple[datetime, str]:
    """The (created_at, id) that a page of jobs or recovery points begins after. Raises CursorInvalid."""
    try:
        created_at, identifier = decode_cursor(cursor)
        return datetime.fromisoformat(created_at).astimezone(UTC), str(UUID(identifier))
    except (ValueError, OverflowError) as error:
        raise CursorInvalid(cursor=cursor) from error
