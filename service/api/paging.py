"""Keyset paging: a page is a range of an index, never an offset, so it costs the same at any depth and size."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from fastapi import Response
from sqlalchemy import Select, String, bindparam, case, null, select

from service.api.documents import BETWEEN_ITEMS, contains, is_final, joined, key_of
from service.db.postgresql import Row
from service.db.reader import Parameters, Reader, Statement
from service.errors import CursorInvalid

BETWEEN = BETWEEN_ITEMS.encode()


@dataclass(frozen=True)
class VersionedPage:
    """`versions` says what is on the page; `documents` says it again with the documents whose versions `known` does not list."""

    versions: Statement
    documents: Statement


def versioned_page(rows: Select[*tuple[Any, ...]]) -> VersionedPage:
    """From a select of versions and documents, and the two columns of their order. The statements need the parameter `limit`."""
    version, document, *order = rows.selected_columns
    unknown = case((contains(bindparam("known", type_=String()), version), null()), else_=document)
    return VersionedPage(
        statement_of_page(rows.with_only_columns(version, *order)), statement_of_page(rows.with_only_columns(version, unknown, *order))
    )


def statement_of_page(rows: Select[*tuple[Any, ...]]) -> Statement:
    """From a select of texts, newest first, and the two columns of that order, a statement that joins each text of one page.

    It needs the parameter `limit`.
    """
    *texts, created_at, identifier = rows.limit(bindparam("limit")).subquery().c
    return Statement(select(*(joined(text, created_at, identifier) for text in texts)))


async def page_response(reader: Reader, statement: Statement, parameters: Parameters, limit: int) -> Response:
    # One more than asked for: whether it exists is whether there is a next page.
    row = await reader.row(statement, {**parameters, "limit": limit + 1})
    return _response(_split(row, 0), limit)


async def versioned_page_response(reader: Reader, page: VersionedPage, parameters: Parameters, limit: int) -> Response:
    """What is on the page is asked each time; only the writing of documents that are final is saved, which is most of the cost."""
    given = {**parameters, "limit": limit + 1}
    versions = _split(await reader.row(page.versions, given), 0)
    kept = [(version, reader.kept.get(version)) for version in versions]
    documents = {version: document for version, document in kept if document is not None}
    if len(documents) == len(versions):
        return _response(list(documents.values()), limit)
    # The page may have changed in between: what counts from here on is what this second look sees.
    row = await reader.row(page.documents, {**given, "known": b"".join(documents).decode()})
    versions = _split(row, 0)
    written = dict(zip((version for version in versions if version not in documents), _split(row, 1), strict=True))
    for version, document in written.items():
        if is_final(version):
            reader.kept.put(version, document)
    documents |= written
    return _response([documents[version] for version in versions], limit)


def _split(row: Row | None, column: int) -> list[bytes]:
    joined_texts = row[column] if row is not None else None
    return bytes(joined_texts).split(BETWEEN) if joined_texts else []


def _response(items: Sequence[bytes], limit: int) -> Response:
    cursor = b"null"
    if len(items) > limit:
        items = items[:limit]
        cursor = b'"%s"' % encode_cursor(*key_of(items[-1])).encode()
    # One join of many pieces: each further copy of a page costs more than all the looking up.
    pieces = [piece for item in items for piece in (BETWEEN, item)][1:]
    return Response(b"".join([b'{"items":[', *pieces, b'],"next_cursor":', cursor, b"}"]), media_type="application/json")


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
