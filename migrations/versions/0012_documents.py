"""What the API says of jobs and recovery points is kept as text. `service.db.documents` writes the texts after the migration."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "job_documents",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_documents_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_documents")),
    )
    op.add_column("recovery_points", sa.Column("document", sa.Text(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # Usual texts stay in their row, as they are: a page reads fifty, and would look each one up elsewhere, or unpack it.
        op.execute("ALTER TABLE job_documents SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    op.drop_column("recovery_points", "document")
    op.drop_table("job_documents")
