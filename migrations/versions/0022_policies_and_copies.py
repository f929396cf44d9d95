"""Policies: `verification` goes, `merge_at` and `copies` come. Copies: their rules, and when the repository removed a point."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | Sequence[str] | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _change_policies(_newer)
    op.add_column("copies", sa.Column("retention", sa.JSON(), nullable=True))
    op.add_column("copied_points", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("copied_points", "removed_at")
    op.drop_column("copies", "retention")
    _change_policies(_older)


def _change_policies(change: Callable[[dict[str, Any]], None]) -> None:
    connection, policies = op.get_bind(), sa.table("policies", sa.column("id"), sa.column("document", sa.JSON()))
    for row in connection.execute(sa.select(policies.c.id, policies.c.document)).all():
        document = json.loads(row.document) if isinstance(row.document, str) else row.document
        change(document)
        connection.execute(sa.update(policies).where(policies.c.id == row.id).values(document=document))


def _newer(document: dict[str, Any]) -> None:
    document.pop("verification", None)
    for track in document["tracks"]:
        track.setdefault("copies", None)
        if track.get("retention") is not None:
            track["retention"].setdefault("merge_at", None)


def _older(document: dict[str, Any]) -> None:
    document["verification"] = None
    for track in document["tracks"]:
        track.pop("copies", None)
        if track.get("retention") is not None:
            track["retention"].pop("merge_at", None)
