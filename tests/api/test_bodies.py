"""Bodies that cannot be read: each gets its own error, and nothing reads more than it must."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from service.config import Settings

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [b'{"kind": ', b"{'kind': 1}", b"\xff\xfe", b"[" * 20_000, b'{"kind": "snapshot", "domain": ' + b"9" * 5_000 + b"}"],
    ids=["cut short", "not quoted", "not UTF-8", "nested too deep", "a number too long"],
)
def test_what_is_no_json_is_malformed(api: TestClient, body: bytes) -> None:
    answer = api.post("/api/v1/jobs", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}])
def test_json_that_is_not_called_json_is_refused_with_the_header_to_send(api: TestClient, headers: dict[str, str]) -> None:
    answer = api.post("/api/v1/jobs", content=b'{"kind": "snapshot", "domain": "db1"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["remedy"]


def test_no_body_at_all_is_a_missing_body(api: TestClient) -> None:
    answer = api.post("/api/v1/jobs")
    assert (answer.status_code, answer.json()["facts"]["fields"]) == (422, [{"field": "body", "reason": "Field required"}])


def test_a_body_that_is_announced_too_large_is_not_read(api: TestClient, settings: Settings) -> None:
    answer = api.post("/api/v1/jobs", content=b" " * (settings.max_body_bytes + 1), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.json()["facts"] == {"limit_bytes": settings.max_body_bytes}


def test_a_body_of_the_largest_size_is_read(api: TestClient, settings: Settings) -> None:
    body = b'{"kind": "snapshot", "domain": "db1"}'.ljust(settings.max_body_bytes)
    assert api.post("/api/v1/jobs", content=body, headers=JSON).status_code == 202


def test_a_stream_that_grows_too_large_is_refused_though_nothing_was_announced(api: TestClient, settings: Settings) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(settings.max_body_bytes // 1024 + 1):
            yield b" " * 1024

    answer = api.post("/api/v1/jobs", content=pieces(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_stream_in_pieces_is_read_as_one_body(api: TestClient) -> None:
    pieces = iter([b'{"kind": "snap', b'shot", "dom', b'ain": "db1"}'])
    assert api.post("/api/v1/jobs", content=pieces, headers=JSON).status_code == 202
