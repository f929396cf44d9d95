"""Stores of every kind, and a repository with a chain of signed points."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.copies.objects import ObjectStore
from service.copies.stores import opened
from service.repository.report import Report
from tests.copies import servers
from tests.copies.servers import S3Server
from tests.repository.conftest import REPOSITORY_ID
from tests.repository.signed_chain import SignedChain


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """It lets a lock be shortened."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def keeping() -> Iterator[S3Server]:
    """It keeps its locks, as Amazon documents it."""
    with servers.moto("keeps-locks") as server:
        yield server


@pytest.fixture(scope="session")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """It shows locks, and keeps none."""
    with servers.rclone_serve_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def folder_target(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "copy").mkdir()
    return {"kind": "folder", "path": str(tmp_path / "copy")}


EVERY_STORE = pytest.mark.parametrize("target", ["folder", "moto", "lying", "rclone"], indirect=True)
"""For a test of what only the store decides. rclone starts a process for each call, so it is slow."""


@pytest.fixture(params=["folder", "moto"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """An empty place."""
    if request.param in ("moto", "lying"):
        server: S3Server = request.getfixturevalue(request.param)
        return server.target()
    if request.param == "rclone":
        return {"kind": "rclone", "remote": f"disk:{tmp_path}/far/away"}
    folder: dict[str, Any] = request.getfixturevalue("folder_target")
    return folder


@pytest.fixture
def report(target: dict[str, Any]) -> Report:
    return Report(key=key_of(target))


def key_of(target: dict[str, Any]) -> bytes | None:
    """What the key of a copy there names."""
    return {"s3": servers.KEY, "rclone": b"[disk]\ntype = local\n"}.get(target["kind"])


@pytest.fixture
def store(target: dict[str, Any], report: Report) -> Iterator[ObjectStore]:
    with opened(target, report) as store:
        yield store


@pytest.fixture(scope="session")
def _chain(tmp_path_factory: pytest.TempPathFactory) -> SignedChain:
    return SignedChain.make(tmp_path_factory.mktemp("source"), 3)


@pytest.fixture
def chain(_chain: SignedChain, tmp_path: Path) -> SignedChain:
    """A full point and two increments, in a repository of this test."""
    root = tmp_path / "repository"
    shutil.copytree(_chain.root, root)
    return replace(_chain, root=root, manifests=list(_chain.manifests))


def asking(chain: SignedChain, target: dict[str, Any]) -> dict[str, Any]:
    """The arguments that all steps of the courier have."""
    return {"path": str(chain.root), "id": REPOSITORY_ID, "target": target}
