"""Whether a store keeps its locks is found out, and not believed."""

from typing import Any

import pytest

from service.copies.attack import SENTINELS, prove_lock
from service.copies.stores import opened
from service.model.immutability import Attack, Immutability, may_lengthen
from service.repository.report import Report
from tests.copies.servers import KEY, S3Server


def proof_of(target: dict[str, Any], mode: str = "compliance", key: bytes | None = KEY) -> dict[str, Any]:
    return prove_lock({"target": target, "mode": mode}, Report(key=key))


def broken_by(proof: dict[str, Any]) -> set[str]:
    return {answer["attack"] for answer in proof["answers"] if not answer["holds"]}


def test_a_bucket_that_keeps_its_locks_is_immutable(keeping: S3Server) -> None:
    proof = proof_of(keeping.target(has_lock=True))
    assert (proof["immutability"], broken_by(proof)) == (Immutability.immutable, set())
    assert {answer["attack"] for answer in proof["answers"]} == set(Attack)
    assert may_lengthen(proof["answers"])


def test_who_may_bypass_the_lock_finds_that_it_is_only_claimed(keeping: S3Server) -> None:
    """moto gives every key the right to bypass a lock of mode governance."""
    proof = proof_of(keeping.target(has_lock=True), "governance")
    assert (proof["immutability"], broken_by(proof)) == (Immutability.claims_only, {"bypass"})


def test_a_store_that_lets_locks_be_shortened_is_found_out(moto: S3Server) -> None:
    proof = proof_of(moto.target(has_lock=True))
    assert (proof["immutability"], broken_by(proof)) == (Immutability.claims_only, {"shorten"})
    assert may_lengthen(proof["answers"])


def test_a_store_that_shows_locks_and_keeps_none_is_found_out(lying: S3Server) -> None:
    proof = proof_of(lying.target())
    assert (proof["immutability"], broken_by(proof)) == (Immutability.claims_only, set(Attack))
    # Its answer to a longer lock is to put the request in the place of the object.
    assert not may_lengthen(proof["answers"])


def test_a_bucket_without_object_lock_has_none(moto: S3Server) -> None:
    proof = proof_of(moto.target())
    assert (proof["immutability"], proof["answers"]) == (Immutability.none, [])
    assert proof["why_not"]


def test_a_folder_has_none(folder_target: dict[str, Any]) -> None:
    proof = proof_of(folder_target, key=None)
    assert proof["immutability"] == Immutability.none


def test_sentinels_whose_lock_is_over_are_removed(moto: S3Server) -> None:
    target = moto.target(has_lock=True)
    proof_of(target)
    with opened(target, Report(key=KEY)) as store:
        shortened = [name for name in store.names(f"{SENTINELS}/") if name.endswith("shorten")]
        assert len(shortened) == 1
        client = store._client  # type: ignore[attr-defined] # to let the lock be over
        key = f"{target['prefix']}/{shortened[0]}"
        past = {"Mode": "COMPLIANCE", "RetainUntilDate": "2020-01-01T00:00:00Z"}
        client.put_object_retention(Bucket=target["bucket"], Key=key, Retention=past)
        proof_of(target)
        assert shortened[0] not in list(store.names(f"{SENTINELS}/"))


def test_a_store_that_does_not_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.copies import s3_store
    from service.errors import CopyNotAnswering

    monkeypatch.setattr(s3_store, "TRIES", 1)
    with pytest.raises(CopyNotAnswering):
        proof_of({"kind": "s3", "bucket": "bucket", "endpoint": "http://127.0.0.1:9"})
