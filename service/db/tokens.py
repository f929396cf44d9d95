"""Bearer tokens. A token is made once and shown once. Only its SHA-256 is stored."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.db import private_file
from service.db.engine import database_now
from service.db.tables import Token
from service.errors import TokenFileUnwritable, TokenNotFound

PREFIX = "sp_"
DERIVED_PREFIX = "spg_"
SHOWN_CHARACTERS = 10
"""Characters of a token that are stored readable, so that a person can tell two tokens apart."""
FIRST_TOKEN_NAME = "admin"  # noqa: S105 - the name of the first token, not a token


@dataclass(frozen=True)
class NewToken:
    """`secret` exists only here, and with the caller who asked for the token."""

    id: str
    name: str
    secret: str


def create(session: Session, name: str, expires_in: timedelta | None = None) -> NewToken:
    secret = PREFIX + secrets.token_urlsafe(32)
    now = database_now(session)
    token = Token(
        id=str(uuid4()),
        name=name,
        prefix=secret[:SHOWN_CHARACTERS],
        digest=digest_of(secret),
        created_at=now,
        expires_at=now + expires_in if expires_in is not None else None,
    )
    session.add(token)
    session.flush()
    return NewToken(token.id, name, secret)


def create_first(session: Session, token_file: Path) -> Path | None:
    """If no token exists, make one and write it to `token_file` with mode 0600.

    None: a token exists already. Raises TokenFileUnwritable; then the caller's transaction must not commit.
    """
    if session.scalar(select(func.count()).select_from(Token)):
        return None
    new = create(session, FIRST_TOKEN_NAME)
    try:
        private_file.write(token_file, new.secret + "\n")
    except OSError as error:
        raise TokenFileUnwritable(path=str(token_file), reason=error.strerror or str(error)) from error
    return token_file


def find_valid(session: Session, digests: Collection[str]) -> dict[str, str]:
    """The ids of the tokens with these digests that were not revoked and have not expired, by digest."""
    rows = select(Token.digest, Token.id, Token.expires_at).where(Token.digest.in_(digests), Token.revoked_at.is_(None))
    tokens = session.execute(rows).all()
    now = database_now(session) if any(row.expires_at is not None for row in tokens) else None
    return {row.digest: row.id for row in tokens if now is None or row.expires_at is None or row.expires_at > now}


def list_all(session: Session) -> list[Token]:
    return list(session.scalars(select(Token).order_by(Token.created_at, Token.id)))


def revoke(session: Session, token_id: str) -> Token:
    """Revoke the token. A second call keeps the time of the first. Raises TokenNotFound."""
    token = session.get(Token, token_id)
    if token is None:
        raise TokenNotFound(token_id=token_id)
    if token.revoked_at is None:
        token.revoked_at = database_now(session)
    return token


def note_use(session: Session, token_id: str, at: datetime) -> None:
    session.execute(update(Token).where(Token.id == token_id).values(last_used_at=at))


def derived(secret: str, purpose: str) -> str:
    """Derive a token by HMAC. The result is the same each time for one purpose, and does not reveal the secret."""
    made = hmac.digest(secret.encode("utf-8", "surrogatepass"), purpose.encode(), "sha256")
    return DERIVED_PREFIX + base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def opens(secret: str, digest: str) -> bool:
    """Whether this is the secret of that digest. The comparison takes the same time in both cases."""
    return secrets.compare_digest(digest_of(secret), digest)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
