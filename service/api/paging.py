"""Keyset paging: a page is a range of an index, never an offset, so it costs the same at any depth and size."""

import base64
import binascii
import json
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from fastapi import Response
from sqlalchemy import Select, bindparam, literal_column, select

from service.api.documents import SEPARATOR, joined
from service.db.reader import Parameters, Reader, Statement
from service.errors import CursorInvalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


def statement_of_page(rows: Select[tuple[str]]) -> Statement:
    """From a select of documents, newest first, a statement that joins one page of them; it needs the parameter `limit`."""
    page = rows.limit(bindparam("limit")).subquery()
    return Statement(select(joined(page.c[0], literal_column(f"'{SEPARATOR}'"))))


async def page_response(reader: Reader, statement: Statement, parameters: Parameters, limit: int) -> Response:
    # One more than asked for: whether it exists is whether there is a next page.
    text = await reader.text(statement, {**parameters, "limit": limit + 1})
    items = text.split(SEPARATOR) if text else []
    cursor = "null"
    if len(items) > limit:
        items.pop()
        cursor = f'"{_cursor_after(items[-1])}"'
    return Response(f'{{"items":[{",".join(items)}],"next_cursor":{cursor}}}', media_type="application/json")


def _cursor_after(document: str) -> str:
    last = json.loads(document)
    return encode_cursor(last["created_at"], last["id"])


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
