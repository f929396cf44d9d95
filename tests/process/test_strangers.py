"""A real service among connections of strangers: it answers who has a token, keeps descriptors for its work, and its log stays short."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.service_process import ServiceProcess

STRANGERS = 1_100
FILES = 1_024
MAX_LOG_BYTES = 5_000
PATIENCE_S = 45.0


@pytest.fixture(autouse=True)
def enough_files_for_the_test() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * STRANGERS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


LIMITED = ("prlimit", f"--nofile={FILES}:{FILES}")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """With a worker, under a limit that it cannot raise."""
    with ServiceProcess(tmp_path, libvirt_uri="test:///default", inside=LIMITED, max_connections="1000") as process:
        yield process


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """It waits for a request for a second, and for what belongs to it for two."""
    with ServiceProcess(
        tmp_path_factory.mktemp("hasty"), libvirt_uri="test:///default", inside=LIMITED, program="tests.process.hasty_door"
    ) as process:
        yield process


def test_connections_that_send_nothing_keep_nobody_out(service: ServiceProcess) -> None:
    log_before = len(service.log_text())
    with ExitStack() as stack:
        for _ in range(STRANGERS):
            connect(stack, service)
        for path in ("/healthz", "/readyz", "/api/v1/domains"):
            assert service.request("GET", path).status_code == 200
        assert _open_files(service) < FILES * 0.6
    assert len(service.log_text()) - log_before < MAX_LOG_BYTES


def test_a_known_connection_stays_while_strangers_come(service: ServiceProcess) -> None:
    with ExitStack() as stack, httpx2.Client(headers={"Authorization": f"Bearer {service.token}"}) as known:
        address = f"http://127.0.0.1:{service.port}/api/v1/hosts"
        ports = {_own_port(known.get(address))}
        for _ in range(STRANGERS):
            connect(stack, service)
        ports.add(_own_port(known.get(address)))
    assert len(ports) == 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"]
)
def test_who_never_finishes_a_request_is_closed(hasty: ServiceProcess, sent: bytes) -> None:
    with ExitStack() as stack:
        slow = connect(stack, hasty)
        slow.sendall(sent)
        slow.settimeout(PATIENCE_S)
        assert slow.recv(1) == b""


def test_who_sends_a_header_byte_by_byte_is_closed_all_the_same(hasty: ServiceProcess) -> None:
    with ExitStack() as stack:
        slow = connect(stack, hasty)
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX: ")

        def goes_on() -> bool:
            try:
                slow.sendall(b"x")
            except OSError:
                return True
            return False

        _until(goes_on)


def test_headers_without_end_are_refused_and_told_nobody(service: ServiceProcess) -> None:
    log_before = len(service.log_text())
    with ExitStack() as stack:
        for _ in range(50):
            endless = connect(stack, service)
            endless.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 40_000)
            assert endless.recv(12) == b"HTTP/1.1 400"
    assert len(service.log_text()) - log_before < MAX_LOG_BYTES


def test_the_service_may_open_as_many_files_as_the_machine_allows(tmp_path: Path) -> None:
    limited = ("prlimit", f"--nofile=256:{FILES}")
    with ServiceProcess(tmp_path, libvirt_uri="test:///default", inside=limited) as service:
        assert service.pid is not None
        assert resource.prlimit(service.pid, resource.RLIMIT_NOFILE) == (FILES, FILES)


def connect(stack: ExitStack, service: ServiceProcess) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60))


def _own_port(answer: httpx2.Response) -> int:
    """Of the connection that it came by."""
    assert answer.status_code == 200
    return int(answer.extensions["network_stream"].get_extra_info("client_addr")[1])


def _open_files(service: ServiceProcess) -> int:
    return len(list(Path(f"/proc/{service.pid}/fd").iterdir()))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s"
        time.sleep(0.2)
