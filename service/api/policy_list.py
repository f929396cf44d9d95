"""Policies as the API answers them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.policies import PolicyFilter
from service.clock import rfc3339
from service.db.tables import Policy
from service.errors import CursorInvalid


def page_of_policies(session: Session, wanted: PolicyFilter) -> dict[str, Any]:
    """By name. Raises CursorInvalid."""
    rows = select(Policy).order_by(Policy.name).limit(wanted.limit + 1)
    if wanted.cursor is not None:
        rows = rows.where(Policy.name > _name_in(wanted.cursor))
    page = list(session.scalars(rows))
    items = [document_of(policy) for policy in page[: wanted.limit]]
    return {"items": items, "next_cursor": encode_cursor(items[-1]["name"]) if len(page) > wanted.limit else None}


def document_of(policy: Policy) -> dict[str, Any]:
    address = f"/api/v1/policies/{policy.id}"
    return {
        "id": policy.id,
        "name": policy.name,
        "paused": policy.document["paused"],
        "revision": policy.revision,
        "created_at": rfc3339(policy.created_at),
        "updated_at": rfc3339(policy.updated_at),
        "document": policy.document,
        "links": {"self": address, "domains": f"{address}/domains", "runs": f"{address}/runs"},
    }


def _name_in(cursor: str) -> str:
    key = decode_cursor(cursor)
    if len(key) != 1 or "\x00" in key[0]:
        raise CursorInvalid(cursor=cursor)
    return key[0]
