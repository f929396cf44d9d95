"""Nothing is open: every call but health and readiness needs a bearer token."""

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
"""A browser cannot send a bearer header by itself, so here the token is also taken as a Basic password."""
CACHE_SECONDS = 2.0
CACHE_SIZE = 1024
NOTE_EVERY_SECONDS = 60.0
UNKNOWN_PAUSE_S = 0.05
UNKNOWN_AT_ONCE = 50
"""Together with the pause: no more than 1,000 wrong tokens a second are answered, so that they leave the interpreter to the worker."""

_log = log.get(__name__)


class TokenCheck:
    """Asks the database who a token is, at most every two seconds per token, and notes its use once a minute.

    Tokens that nobody has seen before are asked for together, at most once in UNKNOWN_PAUSE_S, however many come: a flood of wrong ones
    costs the database next to nothing, and slows down only its sender.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: By digest: until when it is believed, and the id.
        self._known: dict[str, tuple[float, str]] = {}
        self._noted: dict[str, float] = {}
        self._unknown: deque[tuple[str, asyncio.Future[str | None]]] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._may_ask_at = 0.0
        # Beside the requests: noting a use waits for the write lock, and nobody should wait for that.
        self._notes = _one_thread()

    async def token_id(self, secret: str) -> str:
        """Raises TokenRefused, DatabaseUnavailable."""
        digest = tokens.digest_of(secret)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if known is not None:
            # The token was valid shortly before, so its sender does not wait behind unknown tokens.
            found = (await run_sync(self._look_up, [digest])).get(digest)
        else:
            found = await self._together(digest)
        if found is None:
            self._known.pop(digest, None)
            raise TokenRefused
        self._believe(digest, found)
        return found

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
                found = await run_sync(self._look_up, [digest for digest, _ in asked])
            except StillpointError as error:
                for _, waiting in asked:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for digest, waiting in asked:
                # Its caller may have gone meanwhile.
                if not waiting.done():
                    waiting.set_result(found.get(digest))

    def close(self) -> None:
        """It can be used again afterwards."""
        # What is asked for belongs to an event loop that ends now.
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
        # Basic makes a browser ask; any user name, and the token as password.
        return {"WWW-Authenticate": 'Basic realm="stillpoint: any user, the token as password", charset="UTF-8"'}
    return {}
