"""Documents of policies: what is read is written again, and everything that is wrong is told at once."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.api.schemas.job_requests import PostedJob
from service.errors import (
    BlackoutsLeaveNothing,
    CronNeverDue,
    CronUnreadable,
    FieldMissing,
    FieldRefused,
    FieldRepeated,
    FieldUnknown,
    JitterTooLong,
    NoDiskCanTakePart,
    PolicyFault,
    PolicyInvalid,
    SelectorEmpty,
    SelectorNotAlone,
    TextExpected,
    TimeZoneUnknown,
)
from service.model import requests
from service.model.backup_policy import BackupPolicy
from service.model.blackouts import Weekday
from service.model.document_fields import Faults, Fields
from service.model.protection_facts import PromisedProof
from service.model.repository import ProofKind
from service.model.requests import BackupRequest, SnapshotRequest
from service.model.retention_rules import NewFull
from service.model.schedule_rule import CatchUp
from service.model.track import TrackJob
from service.model.verdict import Verdict
from tests.model.written_policies import EVERYTHING, a_blackout, a_job, a_policy, a_schedule, a_track, jobs, policies

POSTED: TypeAdapter[Any] = TypeAdapter(PostedJob)


def read(**more: Any) -> BackupPolicy:
    return BackupPolicy.from_document(a_policy(**more))


def faults_of(document: Any) -> tuple[PolicyFault, ...]:
    with pytest.raises(PolicyInvalid) as raised:
        BackupPolicy.from_document(document)
    return raised.value.faults


def the_fault(**more: Any) -> tuple[type[PolicyFault], str]:
    (fault,) = faults_of(a_policy(**more))
    return type(fault), fault.facts["path"]


def in_track(**more: Any) -> dict[str, Any]:
    return {"tracks": [a_track(**more)]}


# --- what is read ---------------------------------------------------------------------------------


def test_every_field_of_a_document_is_read_and_written_again() -> None:
    policy = BackupPolicy.from_document(EVERYTHING)
    document = policy.as_document()
    assert BackupPolicy.from_document(document) == policy
    assert {**document, "tracks": None, "selector": None} == {**EVERYTHING, "tracks": None, "selector": None}
    assert document["selector"] == {**EVERYTHING["selector"], "all_the_rest": False}  # type: ignore[dict-item]  # of several types
    written, given_track = document["tracks"][0], EVERYTHING["tracks"][0]  # type: ignore[index]
    assert (written["job"], written["schedule"]) == (given_track["job"], given_track["schedule"])
    assert written["retention"].items() >= given_track["retention"].items()


def test_what_is_left_out_gets_its_default() -> None:
    policy = read()
    (track,) = policy.tracks
    assert (policy.paused, policy.blackouts, policy.promise.rpo_s, policy.limits.transfers_per_repository) == (False, (), None, None)
    assert (track.schedule.catch_up, track.schedule.jitter_s, track.retention) == (CatchUp.run, 0, None)
    assert policy.as_document() == BackupPolicy.from_document(policy.as_document()).as_document()


def test_null_stands_for_what_is_left_out() -> None:
    nothing = dict.fromkeys(("description", "paused", "blackouts", "limits", "promise"))
    assert read(**nothing) == read()


def test_the_promise_is_that_of_protection() -> None:
    promise = BackupPolicy.from_document(EVERYTHING).promise
    assert (promise.rpo_s, promise.verdict, promise.proof) == (93_600, Verdict.filesystem, PromisedProof(ProofKind.bytes, 2_592_000))


def test_a_blackout_without_days_is_on_every_day() -> None:
    (blackout,) = read(blackouts=[{"from": "08:00", "to": "24:00", "time_zone": "UTC"}]).blackouts
    assert blackout.days == tuple(Weekday)


def test_days_are_written_in_the_order_of_the_week() -> None:
    (blackout,) = read(blackouts=[a_blackout(days=["sun", "mon"])]).blackouts
    assert blackout.as_document()["days"] == ["mon", "sun"]


def test_a_cron_expression_is_written_with_single_spaces() -> None:
    policy = read(**in_track(schedule=a_schedule(cron=" 0  2 * *\t* ")))
    assert policy.tracks[0].schedule.cron == "0 2 * * *"


def test_a_policy_can_be_written_in_yaml() -> None:
    text = yaml.safe_dump(EVERYTHING)
    assert BackupPolicy.from_document(yaml.safe_load(text)) == BackupPolicy.from_document(EVERYTHING)


@settings(max_examples=200, deadline=None)
@given(policies)
def test_the_canonical_form_of_every_policy_is_read_as_the_same_policy(document: dict[str, Any]) -> None:
    before = deepcopy(document)
    policy = BackupPolicy.from_document(document)
    assert document == before
    canonical = policy.as_document()
    again = BackupPolicy.from_document(canonical)
    assert again == policy
    assert again.as_document() == canonical
    # It consists of plain values, which JSON and YAML give back as they were.
    assert yaml.safe_load(yaml.safe_dump(canonical)) == canonical


# --- jobs -----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(jobs, st.lists(st.sampled_from(["vda", "vdb", "vdz"]), unique=True))
def test_what_a_track_stores_is_never_refused_as_a_job(document: dict[str, Any], targets: list[str]) -> None:
    policy = read(**in_track(job=document))
    try:
        request = policy.tracks[0].job.request_for("db-1", "host-a", targets)
    except NoDiskCanTakePart:
        return
    stored = request.as_document()
    assert requests.read(request.kind.value, stored) == request
    POSTED.validate_python({name: value for name, value in stored.items() if value is not None})


BOUNDS: list[tuple[str, Any, Any, Any]] = [
    ("rate_limit_bytes", 1_023, 1_024, 2**50 + 1),
    ("impact_limit_ms", 0, 600_000, 600_001),
    ("timeout_ms", 999, 1_000, 600_001),
    ("hold_limit_ms", 99, 600_000, 600_001),
    ("hold_soft_ms", 99, 100, 600_001),
]


@pytest.mark.parametrize(("name", "low", "right", "high"), BOUNDS)
def test_a_track_refuses_what_a_job_refuses(name: str, low: Any, right: Any, high: Any) -> None:
    def job(value: Any) -> dict[str, Any]:
        is_of_freeze = name not in ("rate_limit_bytes", "impact_limit_ms")
        return a_job(freeze={name: value}) if is_of_freeze else a_job(**{name: value})

    for value in (low, high):
        assert the_fault(**in_track(job=job(value)))[0] is FieldRefused
        with pytest.raises(ValueError):
            POSTED.validate_python({**job(value), "domain": "db-1"})
    read(**in_track(job=job(right)))
    POSTED.validate_python({**job(right), "domain": "db-1"})


def test_a_disk_that_is_left_out_is_not_among_the_disks_of_the_request() -> None:
    job = read(**in_track(job=a_job(leave_out=["vdb"]))).tracks[0].job
    assert job.request_for("db-1", None, ["vda", "vdb", "vdc"]).disks == ("vda", "vdc")


def test_a_domain_without_the_disks_that_are_left_out_gets_all_its_disks_also_later_ones() -> None:
    job = read(**in_track(job=a_job(leave_out=["vdb"]))).tracks[0].job
    assert job.request_for("db-1", None, ["vda"]).disks is None


def test_a_domain_of_which_every_disk_is_left_out_gets_no_request() -> None:
    job = read(**in_track(job=a_job(leave_out=["vdb"]))).tracks[0].job
    with pytest.raises(NoDiskCanTakePart) as raised:
        job.request_for("db-1", None, ["vdb"])
    assert set(raised.value.facts["reasons"]) == {"vdb"}


def test_the_kind_of_the_job_decides_the_request() -> None:
    backup = read().tracks[0].job.request_for("db-1", "host-a", ["vda"])
    snapshot = read(**in_track(job={"kind": "snapshot"})).tracks[0].job.request_for("db-1", None, ["vda"])
    assert isinstance(backup, BackupRequest)
    assert (backup.repository, backup.host) == ("main", "host-a")
    assert type(snapshot) is SnapshotRequest


def test_a_backup_of_a_track_with_retention_is_told_when_its_chain_is_long_enough() -> None:
    limits = {"max_depth": 5, "max_ratio": 1.5}
    (track,) = read(**in_track(retention={"keep_last": 3, "new_full": limits})).tracks
    request = track.request_for("db-1", None, ["vda"])
    assert isinstance(request, BackupRequest)
    assert request.new_full == NewFull(5, 1.5)
    assert BackupRequest.from_document(request.as_document()) == request
    plain = read().tracks[0].request_for("db-1", None, ["vda"])
    assert isinstance(plain, BackupRequest)
    assert plain.new_full is None
    snapshot = read(**in_track(job={"kind": "snapshot"}, retention={"keep_last": 3})).tracks[0]
    assert type(snapshot.request_for("db-1", None, ["vda"])) is SnapshotRequest


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "fault", "path"),
    [
        ({"name": ".."}, FieldRefused, "name"),
        ({"name": "a/b"}, FieldRefused, "name"),
        ({"name": "a" * 65}, FieldRefused, "name"),
        ({"name": "a\n"}, FieldRefused, "name"),
        ({"name": 2026}, TextExpected, "name"),
        ({"description": "a" * 1_001}, FieldRefused, "description"),
        ({"description": "nul\x00"}, FieldRefused, "description"),
        ({"description": "half \ud800"}, FieldRefused, "description"),
        ({"paused": "no"}, FieldRefused, "paused"),
        ({"verification": None}, FieldUnknown, "verification"),
        ({"selector": {}}, SelectorEmpty, "selector"),
        ({"selector": []}, FieldRefused, "selector"),
        ({"selector": {"names": []}}, FieldRefused, "selector.names"),
        ({"selector": {"names": "db-*"}}, FieldRefused, "selector.names"),
        ({"selector": {"names": ["a", "a"]}}, FieldRepeated, "selector.names[1]"),
        ({"selector": {"names": [7]}}, TextExpected, "selector.names[0]"),
        ({"selector": {"names": [None]}}, FieldRefused, "selector.names[0]"),
        ({"selector": {"labels": {}}}, FieldRefused, "selector.labels"),
        ({"selector": {"labels": {"tier": 1}}}, TextExpected, "selector.labels.tier"),
        ({"selector": {"labels": {"": "x"}}}, FieldRefused, "selector.labels"),
        ({"selector": {"hosts": ["h" * 65]}}, FieldRefused, "selector.hosts[0]"),
        ({"selector": {"all_the_rest": True, "names": ["a"]}}, SelectorNotAlone, "selector"),
        ({"tracks": []}, FieldRefused, "tracks"),
        ({"tracks": {}}, FieldRefused, "tracks"),
        ({"tracks": [a_track(f"t{n}") for n in range(17)]}, FieldRefused, "tracks"),
        ({"tracks": [a_track(), a_track()]}, FieldRepeated, "tracks[1].name"),
        ({"tracks": ["nightly"]}, FieldRefused, "tracks[0]"),
        ({"limits": {"transfers_per_repository": 0}}, FieldRefused, "limits.transfers_per_repository"),
        ({"limits": {"guests_in_window_per_host": True}}, FieldRefused, "limits.guests_in_window_per_host"),
        ({"promise": {"rpo_s": 59}}, FieldRefused, "promise.rpo_s"),
        ({"promise": {"verdict": "none"}}, FieldRefused, "promise.verdict"),
        ({"promise": {"proof": {"kind": "signature", "max_age_s": 60}}}, FieldRefused, "promise.proof.kind"),
        ({"promise": {"proof": {"kind": "bytes"}}}, FieldMissing, "promise.proof.max_age_s"),
        ({"blackouts": [a_blackout(days=[])]}, FieldRefused, "blackouts[0].days"),
        ({"blackouts": [a_blackout(days=["monday"])]}, FieldRefused, "blackouts[0].days[0]"),
        ({"blackouts": [a_blackout("8:00")]}, FieldRefused, "blackouts[0].from"),
        ({"blackouts": [a_blackout("24:00")]}, FieldRefused, "blackouts[0].from"),
        ({"blackouts": [a_blackout(end="25:00")]}, FieldRefused, "blackouts[0].to"),
        ({"blackouts": [a_blackout("08:00", "08:00")]}, FieldRefused, "blackouts[0].to"),
        ({"blackouts": [a_blackout(time_zone="Europe/Berln")]}, TimeZoneUnknown, "blackouts[0].time_zone"),
        ({"blackouts": [a_blackout("00:00", "24:00", days=list(Weekday))]}, BlackoutsLeaveNothing, "blackouts"),
        (in_track(job=a_job(kind="verify")), FieldRefused, "tracks[0].job.kind"),
        (in_track(job={"kind": "backup"}), FieldMissing, "tracks[0].job.repository"),
        (in_track(job={"kind": "snapshot", "repository": "main"}), FieldUnknown, "tracks[0].job.repository"),
        (in_track(job=a_job(leave_out=["/dev/vdb"])), FieldRefused, "tracks[0].job.leave_out[0]"),
        (in_track(job=a_job(leave_out=["vdb", "vdb"])), FieldRepeated, "tracks[0].job.leave_out[1]"),
        (in_track(job=a_job(required_verdict="offline")), FieldRefused, "tracks[0].job.required_verdict"),
        (in_track(job=a_job(freeze="off")), FieldRefused, "tracks[0].job.freeze"),
        (in_track(job=a_job(freeze={"mode": False})), TextExpected, "tracks[0].job.freeze.mode"),
        (in_track(job=a_job(domain="db-1")), FieldUnknown, "tracks[0].job.domain"),
        (in_track(schedule=a_schedule(time_zone="localtime")), TimeZoneUnknown, "tracks[0].schedule.time_zone"),
        (in_track(schedule={"cron": "0 2 * * *"}), FieldMissing, "tracks[0].schedule.time_zone"),
        (in_track(schedule=a_schedule(cron="@daily")), CronUnreadable, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(cron="0 0 2 * * *")), CronUnreadable, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(cron="61 2 * * *")), CronUnreadable, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(cron="0 0 31 2 *")), CronUnreadable, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(cron="0 0 31 4,6 */7")), CronUnreadable, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(cron="0 0 */31 2 1#5")), CronNeverDue, "tracks[0].schedule.cron"),
        (in_track(schedule=a_schedule(jitter_s=86_400)), JitterTooLong, "tracks[0].schedule.jitter_s"),
        (in_track(schedule=a_schedule(cron="0,5 2 * * *", jitter_s=300)), JitterTooLong, "tracks[0].schedule.jitter_s"),
        (in_track(schedule=a_schedule(catch_up_within_s=-1)), FieldRefused, "tracks[0].schedule.catch_up_within_s"),
        (in_track(retention={"keep_last": -1}), FieldRefused, "tracks[0].retention.keep_last"),
        (in_track(retention={"keep_lst": 1}), FieldUnknown, "tracks[0].retention.keep_lst"),
        (in_track(retention={"new_full": {"max_depth": 0}}), FieldRefused, "tracks[0].retention.new_full.max_depth"),
        (in_track(retention={"new_full": {"depth": 1}}), FieldUnknown, "tracks[0].retention.new_full.depth"),
        (in_track(retention=[1]), FieldRefused, "tracks[0].retention"),
        (in_track(copies=[]), FieldRefused, "tracks[0].copies"),
        (in_track(copies=["offsite", "offsite"]), FieldRepeated, "tracks[0].copies[1]"),
        (in_track(job={"kind": "snapshot"}, copies=["offsite"]), FieldRefused, "tracks[0].copies"),
    ],
)
def test_a_fault_has_its_type_and_the_path_of_its_field(more: Mapping[str, Any], fault: type[PolicyFault], path: str) -> None:
    assert the_fault(**more) == (fault, path)


@pytest.mark.parametrize("document", [None, [], "policy", 7])
def test_what_is_not_an_object_is_refused(document: Any) -> None:
    (fault,) = faults_of(document)
    assert isinstance(fault, FieldRefused)


def test_an_empty_document_lacks_name_selector_and_tracks() -> None:
    faults = faults_of({})
    assert {type(fault) for fault in faults} == {FieldMissing}
    assert {fault.facts["path"] for fault in faults} == {"name", "selector", "tracks"}


def test_an_unknown_field_is_named_with_the_nearest_that_is_known() -> None:
    near, far = faults_of(a_policy(selecter={}, on=1))
    assert (near.facts["path"], near.facts["nearest"]) == ("selecter", "selector")
    assert (far.facts["path"], far.facts["nearest"]) == ("on", None)
    assert near.remedy != far.remedy


def test_an_unknown_time_zone_is_named_with_the_nearest_that_is_known() -> None:
    (fault,) = faults_of(a_policy(**in_track(schedule=a_schedule(time_zone="Europe/Berln"))))
    assert fault.facts["nearest"] == "Europe/Berlin"


def test_a_name_that_is_not_a_text_is_refused_by_its_text() -> None:
    (fault,) = faults_of(a_policy(tracks=[{**a_track(), True: 1}]))  # as YAML reads `on: 1`
    assert fault.facts["path"] == "tracks[0].True"


def test_all_faults_are_told_at_once() -> None:
    document = a_policy(
        name="",
        nmae="x",
        tracks=[a_track(job=a_job(level="often"), schedule=a_schedule(cron="every night", time_zone="Mars"))],
        blackouts=[a_blackout("8")],
        promise={"rpo_s": "a day"},
    )
    paths = [fault.facts["path"] for fault in faults_of(document)]
    assert sorted(paths) == [
        "blackouts[0].from",
        "name",
        "nmae",
        "promise.rpo_s",
        "tracks[0].job.level",
        "tracks[0].schedule.cron",
        "tracks[0].schedule.time_zone",
    ]


def test_the_error_has_the_documents_of_its_faults() -> None:
    with pytest.raises(PolicyInvalid) as raised:
        BackupPolicy.from_document(a_policy(name="", paused=1))
    facts = raised.value.facts
    assert facts["count"] == 2
    assert [fault["code"] for fault in facts["faults"]] == [FieldRefused.code, FieldRefused.code]
    assert all(fault.detail in raised.value.detail and fault.remedy in raised.value.remedy for fault in raised.value.faults)


def test_a_long_value_is_cut_in_its_fault() -> None:
    (fault,) = faults_of(a_policy(name="/" * 10_000))
    assert len(fault.detail) < 400


def test_a_time_that_yaml_reads_as_a_number_is_told_to_be_written_in_quotation_marks() -> None:
    document = yaml.safe_load("{from: 08:00, to: 18:00, time_zone: UTC}")
    assert the_fault(blackouts=[document]) == (TextExpected, "blackouts[0].to")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(UUID(int=0)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def _paths(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [before, *(path for key, value in items for path in _paths(value, (*before, key)))]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(_paths(EVERYTHING)), anything)
def test_whatever_stands_in_a_field_is_read_or_refused_as_a_policy(path: tuple[Any, ...], value: Any) -> None:
    document: Any = deepcopy(EVERYTHING)
    if not path:
        document = value
    else:
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    try:
        policy = BackupPolicy.from_document(document)
    except PolicyInvalid as error:
        assert error.faults
        assert error.as_document()["remedy"]
    else:
        assert BackupPolicy.from_document(policy.as_document()) == policy


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789*,-/L#W @SUNJA", max_size=14))
def test_whatever_stands_in_a_cron_expression_is_read_or_refused(expression: str) -> None:
    document = a_policy(**in_track(schedule=a_schedule(cron=f"{expression} * * *")))
    try:
        BackupPolicy.from_document(document)
    except PolicyInvalid as error:
        assert {fault.facts["path"] for fault in error.faults} == {"tracks[0].schedule.cron"}


def test_a_job_document_without_a_kind_has_one_fault() -> None:
    faults = Faults()
    TrackJob.read(Fields({"repository": "main"}, "job", ("kind", "repository"), faults))
    assert [type(fault) for fault in faults.all] == [FieldMissing]
