"""Manifests of points for tests."""

from collections.abc import Sequence
from typing import Any

from service.model.manifest import Manifest, StoredFile
from tests.repository.conftest import REPOSITORY_ID

DOMAIN = "8b7d2c9e-0000-4000-8000-000000000001"


def manifest(name: str, files: Sequence[StoredFile], **more: Any) -> Manifest:
    plain: dict[str, Any] = {
        "point_id": f"id of {name}",
        "repository_id": REPOSITORY_ID,
        "folder": f"domains/{DOMAIN}/{name}",
        "job_id": "job",
        "host_id": "host",
        "domain_id": DOMAIN,
        "domain_name": "web",
        "point_in_time_at": "2026-11-27T21:00:00.000000Z",
        "sealed_at": "2026-11-27T21:01:00.000000Z",
        "verdict": "filesystem",
        "verdict_reasons": [],
        "disks": (),
        "left_out": (),
        "files": tuple(files),
    }
    return Manifest(**plain | more)
