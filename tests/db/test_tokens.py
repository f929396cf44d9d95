"""Tokens: kept as a hash only, and the first one in a file that nobody else can read."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.db import tokens
from service.db.engine import Database
from service.db.tables import Token
from service.errors import TokenFileUnwritable, TokenNotFound


def test_the_database_holds_no_token_that_could_be_used(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        new = tokens.create(session, "laptop")
    with sqlite_database.engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM tokens")).all())

    assert new.secret.startswith("sp_")
    assert len(new.secret) > 40
    assert new.secret not in stored
    assert new.secret[:10] in stored


def test_only_the_whole_secret_opens_it(database: Database) -> None:
    with database.write() as session:
        new = tokens.create(session, "laptop")
        assert _opened_by(session, new.secret) == [new.id]
        assert _opened_by(session, new.secret[:-1], "") == []
        assert _opened_by(session, "wrong", new.secret, "wrong as well") == [new.id]


def test_a_revoked_and_an_expired_token_open_nothing(database: Database) -> None:
    with database.write() as session:
        revoked = tokens.create(session, "a")
        tokens.revoke(session, revoked.id)
        expired = tokens.create(session, "b", expires_in=timedelta(seconds=-1))
        valid = tokens.create(session, "c", expires_in=timedelta(hours=1))
        assert _opened_by(session, revoked.secret, expired.secret, valid.secret) == [valid.id]


def test_revoking_twice_keeps_the_first_time_and_an_unknown_token_is_an_error(database: Database) -> None:
    with database.write() as session:
        new = tokens.create(session, "a")
        first = tokens.revoke(session, new.id).revoked_at
        assert tokens.revoke(session, new.id).revoked_at == first
        with pytest.raises(TokenNotFound):
            tokens.revoke(session, "nothing")


def test_the_first_token_is_written_for_its_owner_alone(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "state" / "admin.token"
    with database.write() as session:
        written = tokens.create_first(session, file)
    with database.write() as session:
        again = tokens.create_first(session, file)
        opened = _opened_by(session, file.read_text().strip())
        names = [session.get_one(Token, identifier).name for identifier in opened]

    assert (written, again) == (file, None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names == ["admin"]
    assert list(file.parent.iterdir()) == [file]


def test_an_old_file_with_open_rights_is_replaced_not_reused(sqlite_database: Database, tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    file.write_text("old")
    file.chmod(0o644)
    with sqlite_database.write() as session:
        tokens.create_first(session, file)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() != "old"


def test_no_token_is_stored_when_its_file_cannot_be_written(sqlite_database: Database, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(TokenFileUnwritable), sqlite_database.write() as session:
        tokens.create_first(session, blocked / "admin.token")
    with sqlite_database.read() as session:
        assert tokens.list_all(session) == []


def test_a_derived_token_is_the_same_for_one_purpose_and_another_for_any_other() -> None:
    assert tokens.derived("sp_secret", "gate 1") == tokens.derived("sp_secret", "gate 1")
    others = {tokens.derived("sp_secret", "gate 1"), tokens.derived("sp_secret", "gate 2"), tokens.derived("sp_other", "gate 1")}
    assert len(others) == 3
    assert not any("secret" in token for token in others)


def test_only_the_secret_of_a_digest_opens_it() -> None:
    digest = tokens.digest_of("sp_secret")
    assert tokens.opens("sp_secret", digest)
    assert not tokens.opens("sp_secreT", digest)


def _opened_by(session: Session, *secrets: str) -> list[str]:
    """The ids of the tokens that these open."""
    return list(tokens.find_valid(session, [tokens.digest_of(secret) for secret in secrets]).values())
