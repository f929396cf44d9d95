"""A service that answers what a test says, for commands that ask over HTTP."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, Any]]
TOKEN = "sp_secret"


@dataclass
class ScriptedService:
    """`answers`: by method and path, in turn. The last one is given again and again. `asked`: what came, with its body."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any] | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""
    #: The first answer ends in its middle, as that of a service that is killed.
    cut_first: bool = False

    def says(self, call: str, *documents: dict[str, Any], status: int = 200) -> None:
        self.answers[call] = [(status, document) for document in documents]

    def answer(self, call: str, body: dict[str, Any] | None) -> Answer:
        self.asked.append((call, body))
        listed = self.answers.get(call)
        if not listed:
            return 404, {"code": "path_not_found", "detail": call, "remedy": ""}
        return listed.pop(0) if len(listed) > 1 else listed[0]

    def bodies_of(self, call: str) -> list[dict[str, Any] | None]:
        return [body for asked, body in self.asked if asked == call]


@contextmanager
def scripted() -> Iterator[ScriptedService]:
    service = ScriptedService()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_DELETE(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        do_PATCH = do_POST

        def _answer(self, body: dict[str, Any] | None) -> None:
            service.tokens.add(self.headers["Authorization"])
            status, document = service.answer(f"{self.command} {self.path}", body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if service.cut_first else content)
            service.cut_first = False

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


class Stillpoint:
    """`stillpoint …` in a process of its own, which asks this service."""

    def __init__(self, folder: Path, service: ScriptedService) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLPOINT_")}
        self.environment = kept | {
            "STILLPOINT_STATE_DIR": str(folder),
            "STILLPOINT_SETTINGS_FILE": "/dev/null",
            "STILLPOINT_URL": service.url,
            "STILLPOINT_TOKEN": TOKEN,
        }

    def __call__(self, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in (self.environment | variables).items() if value is not None}
        return subprocess.run(self.line(*arguments), env=environment, capture_output=True, text=True, timeout=60, check=False)

    @staticmethod
    def line(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "service.cli", *arguments]


def error_document(code: str) -> dict[str, Any]:
    return {"code": code, "title": f"title of {code}", "detail": f"detail of {code}", "remedy": f"remedy of {code}", "facts": {}}
