"""What a job is asked to do: what is stored is read again, also what an older version stored."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.errors import VersionUnknown
from service.model import requests
from service.model.intent import DiscardIntent, Intent, Overlay, WindowIntent
from service.model.kinds import JobKind
from service.model.policy import FreezeMode, FreezePolicy, OnShortfall
from service.model.repository import Compare, IdentityChoice, Level, ProofKind, RestoreMode
from service.model.requests import (
    BackupRequest,
    JobRequest,
    PreflightRequest,
    QuiesceRequest,
    RestoreRequest,
    SnapshotRequest,
    ThawRequest,
    VerifyRequest,
)
from service.model.verdict import Verdict

REQUESTS: list[JobRequest] = [
    SnapshotRequest("db1"),
    SnapshotRequest(
        "db1",
        "hv1",
        FreezePolicy(FreezeMode.preferred, 1000, 2000, 500, preflush=False, fuse=False),
        Verdict.application,
        disks=("vda", "vdb"),
        on_shortfall=OnShortfall.retry,
    ),
    PreflightRequest("db1", disks=("vda",)),
    QuiesceRequest("db1", freeze=FreezePolicy(hold_limit_ms=5000), required_verdict=Verdict.filesystem),
    ThawRequest("db1", "hv1"),
    BackupRequest("db1", repository="id-of-nas"),
    BackupRequest(
        "db1",
        "hv1",
        disks=("vda",),
        repository="id-of-nas",
        level=Level.incremental,
        compress=True,
        compare=Compare.everything,
        rate_limit_bytes=1 << 20,
        impact_limit_ms=50,
        pinned=True,
    ),
    RestoreRequest("id-of-point", RestoreMode.in_place, "db1", stop=True, start=True, accept_usn_risk=True, remove_old_disks=True),
    RestoreRequest("id-of-point", RestoreMode.new, "db1", "hv1", ("vda",), "db2", "/images", IdentityChoice.new, new_uuid="id-of-db2"),
    VerifyRequest("id-of-point"),
    VerifyRequest("id-of-point", "db1", "hv1", checks=(ProofKind.bytes,), rate_limit_bytes=1 << 20),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request.kind}-{request.host}")
def test_what_is_stored_is_read_again(request_: JobRequest) -> None:
    assert requests.read(request_.kind, request_.as_document()) == request_


def test_every_kind_has_its_form() -> None:
    least = {
        "domain": "db1",
        "repository": "id-of-nas",
        "copy": "id-of-copy",
        "recovery_point": "id-of-point",
        "recovery_points": [],
        "mode": "files",
    }
    assert {type(requests.read(kind, least)).kind for kind in JobKind} == set(JobKind)


@pytest.mark.parametrize("document", [{"domain": "db1"}, {"domain": "db1", "freeze": {}}, {"domain": "db1", "freeze": {"mode": None}}])
def test_what_an_older_version_left_out_is_the_default(document: dict[str, Any]) -> None:
    assert requests.read(JobKind.snapshot, document, 0) == SnapshotRequest("db1")


def test_a_field_that_an_older_version_had_is_not_in_the_way() -> None:
    assert requests.read(JobKind.snapshot, {"domain": "db1", "shortfall_try": 2}, 0) == SnapshotRequest("db1")


def test_a_newer_form_is_not_guessed_at() -> None:
    with pytest.raises(VersionUnknown):
        requests.read(JobKind.snapshot, {"domain": "db1"}, requests.VERSION + 1)


def test_only_what_freezes_would_freeze() -> None:
    off = FreezePolicy(FreezeMode.off)
    would = {request.kind for request in REQUESTS if request.would_freeze}
    assert would == {JobKind.snapshot, JobKind.quiesce, JobKind.backup}
    assert not SnapshotRequest("db1", freeze=off).would_freeze


# --- intents ---------------------------------------------------------------------------------------------

OVERLAY = Overlay("vda", "/images/a.qcow2", "qcow2", "/images/a.1a2b3c4d.qcow2", 1 << 30)
WHOLE = Intent(True, (OVERLAY,), 7, WindowIntent(datetime(2026, 1, 31, tzinfo=UTC), 150_000), DiscardIntent("crash", "application"))


@pytest.mark.parametrize("intent", [Intent(), WHOLE])
def test_an_intent_is_read_as_it_was_written(intent: Intent) -> None:
    assert Intent.from_document(intent.as_document()) == intent


def test_an_intent_without_a_version_is_read_as_the_first() -> None:
    document = {name: value for name, value in WHOLE.as_document().items() if name != "v"}
    assert Intent.from_document(document) == WHOLE
    assert Intent.from_document(None) == Intent()


def test_of_a_newer_intent_only_the_freeze_is_read() -> None:
    document = {**WHOLE.as_document(), "v": 99, "overlays": "somewhere else"}
    with pytest.raises(VersionUnknown):
        Intent.from_document(document)
    assert Intent.freeze_of(document) == Intent(True, instance=7)
