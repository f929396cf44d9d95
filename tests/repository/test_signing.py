"""A signature says that a manifest is as it was signed, and by which key."""

import json
import math
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StateFolderUnwritable
from service.model.manifest import Manifest
from service.repository import signing
from service.repository.signing import SignatureState, SigningKey
from tests.repository.manifests import manifest


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.of_service(tmp_path)


CONTENT = signing.canonical(manifest("point", []))


def test_the_key_of_a_service_is_made_once_and_only_it_may_read_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first, second = SigningKey.of_service(state), SigningKey.of_service(state)
    assert first.public == second.public
    assert (state / "signing.key").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in state.iterdir()] == ["signing.key"]


def test_processes_that_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.append(SigningKey.of_service(tmp_path).public)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_damaged_is_told_and_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "signing.key").write_text(content)
    with pytest.raises(StateFolderUnwritable):
        SigningKey.of_service(tmp_path)
    assert (tmp_path / "signing.key").read_text() == content


def test_another_kind_of_key_is_told(tmp_path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-out", tmp_path / "signing.key"], check=True, capture_output=True)
    with pytest.raises(StateFolderUnwritable):
        SigningKey.of_service(tmp_path)


def test_what_was_signed_is_good_for_who_knows_the_key(key: SigningKey) -> None:
    signature = key.sign(CONTENT)
    assert signing.check(CONTENT, signature, {key.id: key.public}) is SignatureState.good
    assert signing.check(CONTENT, signature, {}) is SignatureState.unknown_key
    assert signing.check(CONTENT, None, {key.id: key.public}) is SignatureState.missing
    assert signing.signer(signature) == key.id


def test_a_new_key_under_the_id_of_a_known_one_is_not_taken_for_it(key: SigningKey, tmp_path: Path) -> None:
    forger = SigningKey.of_service(tmp_path / "forger")
    forged = json.loads(forger.sign(CONTENT)) | {"key_id": key.id}
    assert signing.check(CONTENT, json.dumps(forged), {key.id: key.public}) is SignatureState.wrong


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another signature": lambda signature: signature.update(signature="00" * 64),
    "a short signature": lambda signature: signature.update(signature="00"),
    "not hex": lambda signature: signature.update(signature="zz"),
    "another key": lambda signature: signature.update(public_key="11" * 32),
    "a short key": lambda signature: signature.update(public_key="11"),
    "another id": lambda signature: signature.update(key_id="0" * 16),
    "no key": lambda signature: signature.pop("public_key"),
    "a number": lambda signature: signature.update(signature=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signature_that_was_changed_is_wrong(key: SigningKey, change: Callable[[dict[str, Any]], object]) -> None:
    signature = json.loads(key.sign(CONTENT))
    change(signature)
    assert signing.check(CONTENT, json.dumps(signature), {key.id: key.public}) is SignatureState.wrong


def test_a_signature_counts_as_it_was_written(key: SigningKey) -> None:
    """One bit makes a capital letter of a small one."""
    written = key.sign(CONTENT)
    signature = json.loads(written)["signature"]
    assert signature != signature.upper()
    assert signing.check(CONTENT, written.replace(signature, signature.upper()), {}) is SignatureState.wrong


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "[" * 100_000])
def test_a_signature_that_is_not_one_is_wrong(key: SigningKey, text: str) -> None:
    assert signing.check(CONTENT, text, {key.id: key.public}) is SignatureState.wrong
    assert signing.signer(text) is None


def test_each_byte_of_a_manifest_counts(key: SigningKey) -> None:
    signature = key.sign(CONTENT)
    for place in range(len(CONTENT)):
        changed = CONTENT[:place] + bytes([CONTENT[place] ^ 1]) + CONTENT[place + 1 :]
        assert signing.check(changed, signature, {key.id: key.public}) is SignatureState.wrong


def test_openssl_finds_the_signature_right(key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(key.public_text)
    (tmp_path / "manifest").write_bytes(CONTENT)
    (tmp_path / "signature").write_bytes(bytes.fromhex(json.loads(key.sign(CONTENT))["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "manifest", "-sigfile", "signature"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "manifest").write_bytes(CONTENT + b" ")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode != 0


def test_a_public_key_that_is_kept_is_read_again(key: SigningKey) -> None:
    assert signing.public_key(key.public_text) == key.public
    with pytest.raises(ValueError, match="PEM"):
        signing.public_key("no key")


def test_a_manifest_is_read_as_it_was_written() -> None:
    point = manifest("ü\n\"'", [], labels={"b": "1", "a": "2"}, evidence={"ms": 1.5, "none": None, "list": [1, [True]]})
    content = signing.canonical(point)
    assert Manifest.from_document(json.loads(content)) == point
    assert signing.is_canonical(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(alphabet=st.characters(categories=["Cs"])),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_whatever_evidence_holds_can_be_signed(evidence: Any) -> None:
    content = signing.canonical(manifest("point", [], evidence={"facts": evidence}))
    assert signing.is_canonical(content)


def test_what_json_cannot_say_exactly_becomes_text_and_what_was_not_measured_null() -> None:
    content = signing.canonical(
        {"large": 2**63, "float": 1e20, "least": -(2**53) + 1, "nan": math.nan, "endless": math.inf, "name": os.fsdecode(b"a\xff")}
    )
    assert json.loads(content) == {
        "large": str(2**63),
        "float": "1e+20",
        "least": -(2**53) + 1,
        "nan": None,
        "endless": None,
        "name": "a\\xff",
    }


@pytest.mark.parametrize("content", [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n', b"{", b"\xff", b"[" * 100_000])
def test_another_form_is_not_canonical(content: bytes) -> None:
    assert not signing.is_canonical(content)
