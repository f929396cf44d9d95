"""A load generator that costs little beside the server: raw sockets, kept connections, a request that is made once.

It runs in a process of its own, so that it shares no interpreter lock with whoever drives the benchmark.
"""

import asyncio
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.lab.places import LabError

HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """`requests` None: as many as fit into `seconds`."""

    port: int
    request: bytes
    expected_status: int = 200
    connections: int = 8
    seconds: float = 1.0
    requests: int | None = None


@dataclass(frozen=True)
class Outcome:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> ProcessPoolExecutor:
    """Submit `run` to it."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def run(load: Load) -> Outcome:
    """Raises LabError when any answer has another status."""
    return asyncio.run(_run(load))


def request_bytes(method: str, path: str, token: str | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class _Shared:
    load: Load
    until: float
    left: int
    durations: list[float] = field(default_factory=list)
    wrong: bytes | None = None


async def _run(load: Load) -> Outcome:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    shared = _Shared(load, started + load.seconds, load.requests if load.requests is not None else 2**62)
    connections = [_Connection(shared, loop.create_future()) for _ in range(load.connections)]
    for connection in connections:
        await loop.create_connection(lambda opened=connection: opened, "127.0.0.1", load.port)  # type: ignore[misc]  # mypy infers no type for a lambda with a default
    await asyncio.gather(*(connection.done for connection in connections))
    took = time.perf_counter() - started
    if shared.wrong is not None:
        raise LabError(f"the server answered {shared.wrong[:1000].decode(errors='replace')}")
    cuts = statistics.quantiles(shared.durations, n=100, method="inclusive")
    return Outcome(len(shared.durations), took, cuts[49] * 1000, cuts[98] * 1000)


class _Connection(asyncio.Protocol):
    def __init__(self, shared: _Shared, done: asyncio.Future[None]) -> None:
        self.done = done
        self._shared = shared
        self._head = b""
        self._left: int | None = None
        self._status_line = f"HTTP/1.1 {shared.load.expected_status} ".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            end = self._head.find(HEADER_END)
            if end < 0:
                return
            self._left = _content_length(self._head[:end]) + end + len(HEADER_END) - len(self._head)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._answered()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self._shared.wrong = self._shared.wrong or b"nothing: it closed the connection"
            self.done.set_result(None)

    def _send(self) -> None:
        if self._shared.left <= 0 or time.perf_counter() >= self._shared.until or self._shared.wrong is not None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._shared.left -= 1
        self._head, self._left = b"", None
        self._sent = time.perf_counter()
        self._transport.write(self._shared.load.request)

    def _answered(self) -> None:
        self._shared.durations.append(time.perf_counter() - self._sent)
        if not self._head.startswith(self._status_line):
            self._shared.wrong = self._head
        self._send()


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
