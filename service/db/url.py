"""Reads the database's URL from the settings, and shows it without its secrets."""

import re
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from service.config import Settings
from service.errors import SettingInvalid

HIDDEN = "***"
SETTING = "STILLPOINT_DATABASE_URL"
DRIVERS: Final = {"sqlite": "pysqlite", "postgresql": "psycopg"}
HARMLESS = frozenset(
    [
        "host",
        "port",
        "dbname",
        "user",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslcrl",
        "sslnegotiation",
        "gssencmode",
        "channel_binding",
        "connect_timeout",
        "application_name",
        "options",
        "target_session_attrs",
        "load_balance_hosts",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "service",
        "client_encoding",
        "timeout",
        "uri",
        "mode",
        "cache",
    ]
)
_USER = re.compile(r"(://[^:@/]*):.*@", re.DOTALL)
"""Up to the last @, because a password that was not encoded may contain an @."""
_PARAMETER = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)
"""Parts of names whose values are hidden. The path of a key file is hidden, too, which does no harm."""


def database_url(settings: Settings) -> URL:
    """Raises SettingInvalid."""
    url = _parsed(settings.effective_database_url)
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise SettingInvalid(setting=SETTING, reason=f"{url.get_backend_name()} is not supported; use sqlite or postgresql+psycopg")
    if url.get_driver_name() != driver:
        raise SettingInvalid(setting=SETTING, reason=f"{url.drivername} is not supported; use sqlite or postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise SettingInvalid(setting=SETTING, reason="it names no file, and memory does not last; sqlite:////PATH has four slashes")
    return _with_password(url, settings)


def shown(url: URL | str) -> str:
    """A database's URL without its secrets, for people and logs."""
    try:
        # Decode and encode the query again, because `p%61ssword` is also `password`.
        parsed = make_url(url)
        # A value is hidden unless its name is known to be harmless, because a misspelt `pasword` has a password as well.
        query = {name: value if name in HARMLESS else HIDDEN for name, value in parsed.query.items()}
        plain = parsed.set(query=query).render_as_string(hide_password=False)
    except (ArgumentError, ValueError):
        return HIDDEN
    return without_secrets(plain.replace("%2A%2A%2A", HIDDEN))


def without_secrets(url: str) -> str:
    """Any URL without its secrets."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1:{HIDDEN}@", url))


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, ValueError) as error:
        # The error's own text may repeat the URL, and a password in it.
        raise SettingInvalid(setting=SETTING, reason="it is not a database URL such as postgresql+psycopg://USER@HOST/NAME") from error
    if "@" in (url.host or ""):
        reason = "its password has a character that must be encoded (@ is %40, / is %2F). STILLPOINT_DATABASE_PASSWORD needs no encoding"
        raise SettingInvalid(setting=SETTING, reason=reason)
    return url


def _with_password(url: URL, settings: Settings) -> URL:
    if settings.database_password is None:
        return url
    setting = "STILLPOINT_DATABASE_PASSWORD"
    if url.get_backend_name() == "sqlite":
        raise SettingInvalid(setting=setting, reason=f"SQLite takes no password; {SETTING} must name a PostgreSQL for it")
    if url.password is not None or "password" in url.query:
        raise SettingInvalid(setting=setting, reason=f"there is a password in {SETTING}, too; leave one of them out")
    return url.set(password=settings.database_password.get_secret_value())
