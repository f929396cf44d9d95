"""Points are carried to a copy and back: whole or not at all, bases first, and never without a check of what arrived."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.copies.fetching import check_copy, fetch_point, list_copy
from service.copies.objects import ObjectStore, Source
from service.copies.sending import lengthen, open_copy, send_point
from service.copies.stores import opened
from service.errors import CopyArrivedWrong, CopyBad, CopyDamaged, CopyIncomplete, CopyNotAnswering, PointDamaged
from service.repository import signing
from service.repository.report import Report
from service.repository.store import Repository
from tests.copies.conftest import EVERY_STORE, asking
from tests.copies.servers import KEY, S3Server
from tests.repository.conftest import REPOSITORY_ID
from tests.repository.signed_chain import SignedChain

UNTIL = "2031-01-01T00:00:00.000000Z"


def opened_copy(chain: SignedChain, target: dict[str, Any], report: Report, *, is_known: bool = False) -> dict[str, Any]:
    return open_copy({**asking(chain, target), "is_known": is_known}, report)


def send(chain: SignedChain, target: dict[str, Any], report: Report, number: int, **more: Any) -> dict[str, Any]:
    return send_point({**asking(chain, target), "folder": chain.manifests[number - 1].folder, **more}, report)


def fetch(chain: SignedChain, target: dict[str, Any], report: Report, number: int, **more: Any) -> dict[str, Any]:
    return fetch_point({**asking(chain, target), "folder": chain.manifests[number - 1].folder, **more}, report)


def digest_of(chain: SignedChain, number: int) -> str:
    return signing.digest((chain.folder(number) / "manifest.json").read_bytes())


@pytest.fixture
def sent(chain: SignedChain, target: dict[str, Any], report: Report) -> SignedChain:
    """All three points are on the copy."""
    opened_copy(chain, target, report)
    for number in (1, 2, 3):
        send(chain, target, report, number)
    return chain


def test_what_was_sent_is_listed_and_can_be_read_back(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    listed = list_copy({"target": target}, report)
    assert [point["id"] for point in listed["points"]] == [manifest.point_id for manifest in sent.manifests]
    assert [point["manifest_digest"] for point in listed["points"]] == [digest_of(sent, number) for number in (1, 2, 3)]
    assert listed["points"][2]["parents"] == [sent.manifests[1].point_id]
    for number in (1, 2, 3):
        arguments = {"target": target, "folder": sent.manifests[number - 1].folder, "manifest_digest": digest_of(sent, number)}
        assert check_copy(arguments, report)["bytes"] == sum(file.bytes for file in sent.manifests[number - 1].files)


def test_what_is_there_is_not_sent_again(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    again = send(sent, target, report, 2)
    assert again["sent_bytes"] == 0
    assert again["bytes"] > 0


@EVERY_STORE
def test_a_point_comes_back_as_it_was(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    before = {number: contents(sent.folder(number)) for number in (1, 2, 3)}
    for number in (1, 2, 3):
        shutil.rmtree(sent.folder(number))
        assert not fetch(sent, target, report, number, manifest_digest=None)["is_there"]
    assert {number: contents(sent.folder(number)) for number in (1, 2, 3)} == before
    with Repository(str(sent.root), REPOSITORY_ID) as repository:
        assert [point.error for point in repository.points()] == [None, None, None]
        answer = repository.call("verify_point", {"folder": sent.manifests[2].folder, "checks": ["bytes"], "encrypted": False})
    assert answer["bytes"]["ok"] is True
    assert partials(sent) == []


def test_a_point_that_is_there_is_not_fetched(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    assert fetch(sent, target, report, 1)["is_there"] is True
    assert partials(sent) == []


def test_a_folder_copy_is_a_repository(chain: SignedChain, folder_target: dict[str, Any]) -> None:
    report = Report()
    opened_copy(chain, folder_target, report)
    for number in (1, 2, 3):
        send(chain, folder_target, report, number)
    with Repository(folder_target["path"], REPOSITORY_ID) as copy:
        points = {point.manifest.point_id: point for point in copy.points() if point.manifest is not None}
        assert set(points) == {manifest.point_id for manifest in chain.manifests}
        assert {point.is_signed for point in points.values()} == {True}
        answer = copy.call("verify_point", {"folder": chain.manifests[2].folder, "checks": ["bytes"], "encrypted": False})
        assert answer["bytes"]["ok"] is True
        assert copy.public_keys()


# --- half points ------------------------------------------------------------------------------------


class Dies(Exception):
    pass


@pytest.mark.parametrize("after", range(1, 8))
def test_a_courier_that_dies_after_any_object_leaves_no_whole_point(
    chain: SignedChain, target: dict[str, Any], report: Report, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_copy(chain, target, report)
    send(chain, target, report, 1)
    with opened(target, report) as store:
        real, count = type(store).put, [0]
        store_type = type(store)

    def put(store: ObjectStore, *arguments: Any) -> Any:
        if count[0] == after:
            raise Dies
        count[0] += 1
        return real(store, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(store_type, "put", put)
        try:
            send(chain, target, report, 2)
            died = False
        except Dies:
            died = True
    ids = [point["id"] for point in list_copy({"target": target}, report)["points"]]
    assert (chain.manifests[1].point_id in ids) is not died
    again = send(chain, target, report, 2)
    assert again["sent_bytes"] < again["bytes"]
    check_copy({"target": target, "folder": chain.manifests[1].folder}, report)


def test_a_fetch_that_died_goes_on(sent: SignedChain, target: dict[str, Any], report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(sent.folder(3))
    shutil.rmtree(sent.folder(3))
    with opened(target, report) as store:
        store_type, real, count = type(store), type(store).pieces, [0]

    def pieces(store: ObjectStore, name: str, version: str | None = None) -> Any:
        count[0] += 1
        if count[0] == 4:
            raise Dies
        return real(store, name, version)

    with monkeypatch.context() as patched:
        patched.setattr(store_type, "pieces", pieces)
        with pytest.raises(Dies):
            fetch(sent, target, report, 3)
    assert not sent.folder(3).exists()
    (partial,) = partials(sent)
    (partial / "stranger").write_bytes(b"of another try")
    answer = fetch(sent, target, report, 3)
    assert answer["fetched_bytes"] < answer["bytes"]
    assert contents(sent.folder(3)) == before
    assert partials(sent) == []


# --- damage, here and there ---------------------------------------------------------------------------


def test_a_damaged_point_is_not_sent(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    opened_copy(chain, target, report)
    damage(chain.folder(1) / "vda.qcow2")
    with pytest.raises(PointDamaged):
        send(chain, target, report, 1)
    assert list_copy({"target": target}, report)["points"] == []


def test_a_manifest_that_is_not_the_one_on_record_is_not_sent(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    opened_copy(chain, target, report)
    with pytest.raises(PointDamaged):
        send(chain, target, report, 1, manifest_digest="0" * 64)


@EVERY_STORE
def test_damage_on_the_copy_is_found_and_healed_by_the_next_send(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    folder = sent.manifests[0].folder
    spoil(target, f"{folder}/vda.qcow2", report)
    with pytest.raises(CopyDamaged):
        check_copy({"target": target, "folder": folder}, report)
    shutil.move(sent.folder(1), sent.root.parent / "aside")
    with pytest.raises(CopyDamaged):
        fetch(sent, target, report, 1)
    assert not sent.folder(1).exists()
    shutil.move(sent.root.parent / "aside", sent.folder(1))
    assert send(sent, target, report, 1)["sent_bytes"] > 0
    check_copy({"target": target, "folder": folder}, report)


def test_another_manifest_on_the_copy_is_seen(sent: SignedChain, target: dict[str, Any], report: Report) -> None:
    """Its writer has no key, but can write there."""
    folder, digest = sent.manifests[0].folder, digest_of(sent, 1)
    with opened(target, report) as store:
        document = json.loads(b"".join(store.pieces(f"{folder}/manifest.json")))
        put(store, f"{folder}/manifest.json", signing.canonical(document | {"verdict": "application"}), report)
    shutil.rmtree(sent.folder(1))
    with pytest.raises(CopyDamaged):
        fetch(sent, target, report, 1, manifest_digest=digest)
    with pytest.raises(CopyDamaged):
        check_copy({"target": target, "folder": folder, "manifest_digest": digest}, report)


def test_a_point_that_is_not_there_is_incomplete(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    opened_copy(chain, target, report)
    with pytest.raises(CopyIncomplete):
        check_copy({"target": target, "folder": chain.manifests[0].folder}, report)
    shutil.rmtree(chain.folder(1))
    with pytest.raises(CopyIncomplete):
        fetch(chain, target, report, 1)


def test_a_store_that_loses_what_it_took_is_seen(
    chain: SignedChain, target: dict[str, Any], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_copy(chain, target, report)
    with opened(target, report) as store:
        store_type = type(store)
    with monkeypatch.context() as patched:
        patched.setattr(store_type, "put", lambda *_: None)
        with pytest.raises(CopyArrivedWrong):
            send(chain, target, report, 1)
    assert list_copy({"target": target}, report)["points"] == []


# --- whose copy it is ---------------------------------------------------------------------------------


@EVERY_STORE
def test_a_place_with_other_things_is_not_taken(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    with opened(target, report) as store:
        put(store, "letters/one.txt", b"private", report)
    with pytest.raises(CopyBad):
        opened_copy(chain, target, report)


def test_a_place_that_is_the_copy_of_another_repository_is_not_taken(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    assert opened_copy(chain, target, report)["is_new"] is True
    assert opened_copy(chain, target, report, is_known=True)["is_new"] is False
    described = json.loads((chain.root / "repository.json").read_text())
    (chain.root / "repository.json").write_text(json.dumps(described | {"id": "another"}))
    with pytest.raises(CopyBad):
        open_copy({**asking(chain, target), "id": "another", "is_known": True}, report)


def test_a_copy_that_is_empty_all_at_once_is_not_begun_anew(chain: SignedChain, target: dict[str, Any], report: Report) -> None:
    """A share that is not mounted would take the whole copy."""
    with pytest.raises(CopyNotAnswering):
        opened_copy(chain, target, report, is_known=True)
    with opened(target, report) as store:
        assert list(store.names("")) == []


# --- locks --------------------------------------------------------------------------------------------


def test_locks_reach_all_objects_and_are_lengthened_with_the_increment(chain: SignedChain, keeping: S3Server) -> None:
    report, target = Report(key=KEY), keeping.target(has_lock=True)
    opened_copy(chain, target, report)
    lock = {"mode": "compliance", "until": "2030-01-01T00:00:00.000000Z"}
    assert send(chain, target, report, 1, lock=lock, may_lengthen=True)["lock"] == lock
    longer = {**lock, "until": UNTIL}
    names = len(list(chain.folder(1).iterdir()))
    assert lengthen({**asking(chain, target), "folder": chain.manifests[0].folder, "lock": longer}, report)["changed"] == names
    assert lengthen({**asking(chain, target), "folder": chain.manifests[0].folder, "lock": lock}, report)["changed"] == 0
    assert send(chain, target, report, 1, lock=lock, may_lengthen=True)["lock"] == longer


def test_a_store_that_replaces_what_it_should_lock_longer_is_seen(chain: SignedChain, lying: S3Server) -> None:
    report, target = Report(key=KEY), lying.target()
    opened_copy(chain, target, report)
    lock = {"mode": "compliance", "until": "2030-01-01T00:00:00.000000Z"}
    send(chain, target, report, 1, lock=lock)
    with pytest.raises(CopyArrivedWrong):
        lengthen({**asking(chain, target), "folder": chain.manifests[0].folder, "lock": {**lock, "until": UNTIL}}, report)


# --- the places of this file --------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def partials(chain: SignedChain) -> list[Path]:
    return list(chain.root.glob("domains/*/.partial-*"))


def damage(file: Path) -> None:
    with file.open("r+b") as opened_file:
        opened_file.seek(file.stat().st_size // 2)
        opened_file.write(os.urandom(16))


def spoil(target: dict[str, Any], name: str, report: Report) -> None:
    """The same size, and another content."""
    with opened(target, report) as store:
        content = bytearray(b"".join(store.pieces(name)))
        content[len(content) // 2] ^= 1
        put(store, name, bytes(content), report)


def put(store: ObjectStore, name: str, content: bytes, report: Report) -> None:
    source = Source.of_text(content, report)
    store.put(name, source)
    source.close()
