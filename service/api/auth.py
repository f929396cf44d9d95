"""Checks the token of every call. Only health and readiness need no bearer token."""

import asyncio
import base64
import binascii
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import log
from service.api.problems import problem_response
from service.db import tokens
from service.db.engine import Database, database_now
from service.deadlines import close_in_time
from service.errors import DatabaseUnavailable, StillpointError, TokenMissing, TokenRefused

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
BROWSER_PATHS = frozenset({"/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js", "/openapi.json"})
"""A browser cannot send a bearer header by itself, so these paths also accept the token as a Basic password."""
CACHE_SECONDS = 2.0
"""Seconds that a valid token is believed. After that the database is asked again."""
CACHE_SIZE = 1024
"""Tokens. A further token empties the cache."""
NOTE_EVERY_SECONDS = 60.0
"""Seconds between two writes that a token was used."""
UNKNOWN_PAUSE_S = 0.05
"""Seconds between two questions about unknown tokens. Further unknown tokens wait."""
UNKNOWN_AT_ONCE = 50
"""Unknown tokens in one question. With the pause, at most 1,000 wrong tokens a second are answered, which leaves time for the worker."""

_log = log.get(__name__)


class TokenCheck:
    """Looks tokens up in the database, at most every two seconds for each token, and notes their use once a minute.

    Unknown tokens are looked up together, at most once in UNKNOWN_PAUSE_S. A flood of wrong tokens costs the database almost nothing, and
    slows down only its sender.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: By digest: until when the token is believed, and its id.
        self._known: dict[str, tuple[float, str]] = {}
        self._noted: dict[str, float] = {}
        self._unknown: deque[tuple[str, asyncio.Future[str | None]]] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._may_ask_at = 0.0
        # In a thread of its own: the write waits for the write lock, and no request should wait for that.
        self._notes = _one_thread()

    async def token_id(self, secret: str) -> str:
        """Raises TokenRefused, DatabaseUnavailable."""
        digest = tokens.digest_of(secret)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if known is not None:
            # The token was valid shortly before, so its sender does not wait behind unknown tokens.
            token_id = (await run_sync(self._look_up, [digest])).get(digest)
        else:
            token_id = await self._together(digest)
        if token_id is None:
            self._known.pop(digest, None)
            raise TokenRefused
        self._believe(digest, token_id)
        return token_id

    async def _together(self, digest: str) -> str | None:
        """Raises DatabaseUnavailable."""
        waiting: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._unknown.append((digest, waiting))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await waiting

    async def _ask(self) -> None:
        while self._unknown:
            await asyncio.sleep(max(0.0, self._may_ask_at - time.monotonic()))
            self._may_ask_at = time.monotonic() + UNKNOWN_PAUSE_S
            asked = [self._unknown.popleft() for _ in range(min(UNKNOWN_AT_ONCE, len(self._unknown)))]
            try:
                token_ids = await run_sync(self._look_up, [digest for digest, _ in asked])
            except StillpointError as error:
                for _, waiting in asked:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for digest, waiting in asked:
                # The caller may have gone meanwhile.
                if not waiting.done():
                    waiting.set_result(token_ids.get(digest))

    def close(self) -> None:
        """End the thread. The object can be used again afterwards."""
        # The open questions belong to an event loop that ends now.
        self._asking = None
        self._unknown.clear()
        close_in_time(self._notes.shutdown, call="note the use of tokens")
        self._notes = _one_thread()

    def _look_up(self, digests: list[str]) -> dict[str, str]:
        with self._database.read() as session:
            return tokens.find_valid(session, digests)

    def _believe(self, digest: str, token_id: str) -> None:
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        now = time.monotonic()
        self._known[digest] = (now + CACHE_SECONDS, token_id)
        if now - self._noted.get(token_id, -NOTE_EVERY_SECONDS) >= NOTE_EVERY_SECONDS:
            self._noted[token_id] = now
            self._notes.submit(self._note, token_id)

    def _note(self, token_id: str) -> None:
        try:
            with self._database.write() as session:
                tokens.note_use(session, token_id, database_now(session))
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
        # Basic makes a browser ask for a user name, which may be any text, and for a password, which is the token.
        return {"WWW-Authenticate": 'Basic realm="stillpoint: any user, the token as password", charset="UTF-8"'}
    return {}
