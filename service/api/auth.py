"""Nothing is open: every call but health and readiness needs a bearer token."""

import base64
import binascii
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import log
from service.api.problems import problem_response
from service.db import tokens
from service.db.engine import Database
from service.errors import DatabaseUnavailable, StillpointError, TokenMissing, TokenRefused

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
BROWSER_PATHS = frozenset({"/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js", "/openapi.json"})
"""A browser cannot send a bearer header by itself, so here the token is also taken as a Basic password."""
CACHE_SECONDS = 2.0
CACHE_SIZE = 1024
NOTE_EVERY_SECONDS = 60.0

_log = log.get(__name__)


class TokenCheck:
    """Asks the database who a token is, at most every two seconds per token, and notes its use once a minute."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, str]] = {}
        self._noted: dict[str, float] = {}
        # Beside the requests: noting a use waits for the write lock, and nobody should wait for that.
        self._notes = _one_thread()

    async def token_id(self, secret: str) -> str:
        """Raises TokenRefused, DatabaseUnavailable."""
        known = self._known.get(secret)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        return await run_sync(self._look_up, secret)

    def close(self) -> None:
        """It can be used again afterwards."""
        self._notes.shutdown(wait=True)
        self._notes = _one_thread()

    def _look_up(self, secret: str) -> str:
        with self._database.read() as session:
            token = tokens.find_valid(session, secret)
        if token is None:
            self._known.pop(secret, None)
            raise TokenRefused
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        now = time.monotonic()
        self._known[secret] = (now + CACHE_SECONDS, token.id)
        if now - self._noted.get(token.id, -NOTE_EVERY_SECONDS) >= NOTE_EVERY_SECONDS:
            self._noted[token.id] = now
            self._notes.submit(self._note, token.id, datetime.now(UTC))
        return token.id

    def _note(self, token_id: str, at: datetime) -> None:
        try:
            with self._database.write() as session:
                tokens.note_use(session, token_id, at)
        except DatabaseUnavailable as error:
            _log.warning("token_use_not_noted", token_id=token_id, reason=error.detail)


class Authentication:
    """Lets a request through with the id of its token in the request's state, or answers 401."""

    def __init__(self, app: ASGIApp, check: TokenCheck) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            token_id = await self._check.token_id(secret_in(scope))
        except StillpointError as error:
            await problem_response(error, scope["path"], _challenge(scope["path"]))(scope, receive, send)
            return
        scope.setdefault("state", {})["token_id"] = token_id
        await self._app(scope, receive, send)


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="token-use")


def secret_in(scope: Scope) -> str:
    """The token of a request. Raises TokenMissing."""
    scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic" and scope["path"] in BROWSER_PATHS:
        return _basic_password(value)
    raise TokenMissing


def _basic_password(value: str) -> str:
    try:
        _user, separator, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise TokenMissing from None
    if not separator:
        raise TokenMissing
    return password


def _challenge(path: str) -> dict[str, str]:
    if path in BROWSER_PATHS:
        # Basic makes a browser ask; any user name, and the token as password.
        return {"WWW-Authenticate": 'Basic realm="stillpoint: any user, the token as password", charset="UTF-8"'}
    return {}
