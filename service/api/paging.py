"""Keyset paging: a page is a range of an index, never an offset, so it costs the same at any depth and size."""

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from fastapi import Response
from sqlalchemy import Select, bindparam, func, select

from service.api.documents import BETWEEN_ITEMS, joined, key_of
from service.db.reader import Parameters, Reader, Statement
from service.errors import CursorInvalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
BETWEEN = BETWEEN_ITEMS.encode()


def statement_of_page(rows: Select[str]) -> Statement:
    """From a select of documents, newest first, a statement that joins one page of them; it needs the parameter `limit`."""
    page = rows.limit(bindparam("limit")).subquery()
    return Statement(select(joined(page.c[0]), func.count()))


async def page_response(reader: Reader, statement: Statement, parameters: Parameters, limit: int) -> Response:
    # One more than asked for: whether it exists is whether there is a next page.
    row = await reader.row(statement, {**parameters, "limit": limit + 1})
    items, count = (bytes(row[0] or b""), row[1]) if row is not None else (b"", 0)
    cursor = b"null"
    if count > limit:
        items = items[: items.rindex(BETWEEN)]
        cursor = b'"%s"' % encode_cursor(*key_of(items[items.rfind(BETWEEN) + len(BETWEEN) if limit > 1 else 0 :])).encode()
    body = b"".join((b'{"items":[', items, b'],"next_cursor":', cursor, b"}"))
    return Response(body, media_type="application/json")


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
