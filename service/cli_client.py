"""How the commands ask the service: its HTTP API, with nothing but the standard library."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from service.errors import ServiceRefused, ServiceUnreachable, TokenNotKnown

if TYPE_CHECKING:
    from service.config import Settings

API = "/api/v1"
URL_VARIABLE, TOKEN_VARIABLE = "STILLPOINT_URL", "STILLPOINT_TOKEN"
ANSWER_S = 30.0
"""Seconds for one answer of the service. After that it counts as unreachable."""
AWAY_S = 120.0
"""Seconds that a command which waits for a job puts up with a service that is away, as it is while it is restarted."""
AWAY_PAUSE_S = 1.0
"""Seconds between two tries to reach a service that is away."""
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a service that listens everywhere also listens here


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The service redirects nowhere, and the token is for the service alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


#: Without the proxies of the environment, which are for the internet: one that does not know the service would get the token.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


class Client:
    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token.strip()

    def get(self, *path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The segments of the path, not quoted. Raises ServiceRefused, ServiceUnreachable, as do all calls."""
        return self._call("GET", path, query=query)

    def items(self, *path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        for page in self.pages(*path, query=query):
            yield from page["items"]

    def pages(self, *path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self._call("GET", path, query={**(query or {}), **({"cursor": cursor} if cursor is not None else {})})
            yield page
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, *path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._call("POST", path, json.dumps(body if body is not None else {}).encode(), query=query)

    def patch(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("PATCH", path, json.dumps(body).encode())

    def delete(self, *path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._call("DELETE", path, query=query)

    def get_patiently(self, *path: str) -> dict[str, Any]:
        """For a command that waits: a service that is away for a while is asked again."""
        until = time.monotonic() + AWAY_S
        while True:
            try:
                return self.get(*path)
            except ServiceUnreachable:
                if time.monotonic() > until:
                    raise
            time.sleep(AWAY_PAUSE_S)

    def _call(
        self, method: str, path: tuple[str, ...], content: bytes | None = None, *, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        url = "/".join((self._url + API, *(quote(segment, safe="") for segment in path)))
        url += f"?{urlencode(query)}" if query else ""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310 - the caller names the service
            with _OPENER.open(request, timeout=ANSWER_S) as answer:
                return _object(answer.read(), url)
        except urllib.error.HTTPError as error:
            raise _refused(error.code, error.read()) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServiceUnreachable(url=self._url, reason=str(reason) or type(reason).__name__) from error


def client(url: str | None, token: str | None) -> Client:
    """What is not given comes from the environment, and then from the settings of the service on this machine.

    Raises TokenNotKnown, SettingInvalid.
    """
    url = url or os.environ.get(URL_VARIABLE)
    token = token or os.environ.get(TOKEN_VARIABLE)
    if url and token:
        return Client(url, token)
    # The settings of the service may be readable for root only, so nobody else needs them who says both.
    from service.cli_settings import settings

    here = settings()
    return Client(url or _address(here), token or _token_in(here.token_file))


def _address(here: "Settings") -> str:
    host = EVERY_ADDRESS.get(here.bind, here.bind)
    return f"http://[{host}]:{here.port}" if ":" in host else f"http://{host}:{here.port}"


def _token_in(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenNotKnown(path=file, reason=getattr(error, "strerror", None) or "it is not a file with a token") from error


def _object(content: bytes, url: str) -> dict[str, Any]:
    document = json.loads(content) if content else {}
    if not isinstance(document, dict):
        raise ValueError(f"{url} did not answer with a JSON object")
    return document


def _refused(status: int, content: bytes) -> ServiceRefused:
    try:
        problem = _object(content, "")
    except ValueError:
        problem = {}
    says = problem.get("detail") or problem.get("title") or f"HTTP status {status}"
    return ServiceRefused(status=status, answer_code=problem.get("code", status), says=says, hint=problem.get("remedy") or "")
