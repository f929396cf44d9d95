"""Limits the size of request bodies."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import BodyTooLarge


class BodyLimit:
    """Answers 413 before other code runs: at once if Content-Length is too large, otherwise when the body passes the limit."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        read = None if self._is_announced_too_large(scope) else await self._read(receive)
        if read is None:
            await problem_response(BodyTooLarge(limit_bytes=self._limit_bytes), scope["path"])(scope, receive, send)
            return

        async def replay() -> Message:
            return read.pop(0) if read else await receive()

        await self._app(scope, replay, send)

    def _is_announced_too_large(self, scope: Scope) -> bool:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        return announced.isdigit() and int(announced[:20]) > self._limit_bytes

    async def _read(self, receive: Receive) -> list[Message] | None:
        """All messages of the body. None: together they are too large."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._limit_bytes:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages
