"""What every store does: whole objects only, told apart by their content, and errors that say whose they are."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.copies import s3_parts, s3_store
from service.copies.objects import Lock, ObjectStore, Source, SourceDiffers, sha256_of, text_of, verified
from service.copies.stores import opened
from service.errors import CopyArrivedWrong, CopyNotAnswering, CopyRefused, KeyUnusable, LockNotOffered
from service.model.copy_target import LockMode
from service.model.manifest import StoredFile
from service.repository.report import Report
from tests.copies.conftest import EVERY_STORE, key_of
from tests.copies.servers import KEY, S3Server

NAME = "domains/one/point/vda.qcow2"


class File:
    """A file of the source, with its true SHA-256 or another one."""

    def __init__(self, content: bytes, sha256: str | None = None) -> None:
        self.descriptor = os.memfd_create("source")
        os.write(self.descriptor, content)
        self.stored = StoredFile(NAME, len(content), sha256 or hashlib.sha256(content).hexdigest())
        self.read_bytes = 0

    def source(self, report: Report) -> Source:
        return Source(self.descriptor, self.stored, self._note, report)

    def _note(self, count: int) -> None:
        self.read_bytes += count


def put(store: ObjectStore, content: bytes, report: Report) -> File:
    file = File(content)
    told = store.put(NAME, file.source(report))
    verified(store, file.stored, told, report)
    return file


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five MiB are the least that S3 takes for a part which is not the last."""
    monkeypatch.setattr(s3_parts, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(s3_store, "MAX_ONE_PUT_BYTES", 5 << 20)


@EVERY_STORE
@pytest.mark.parametrize("size", [0, 1, 3 << 20, 12 << 20])
def test_what_is_put_comes_back(store: ObjectStore, report: Report, size: int, small_parts: None) -> None:
    content = os.urandom(size)
    file = put(store, content, report)
    assert b"".join(store.pieces(NAME)) == content
    assert sha256_of(store, NAME, report) == file.stored.sha256
    there = store.head(NAME)
    assert there is not None
    assert there.size == size
    assert list(store.names("domains/")) == [NAME]
    assert file.read_bytes == size


@EVERY_STORE
def test_a_second_put_replaces_the_first(store: ObjectStore, report: Report) -> None:
    put(store, b"first", report)
    put(store, b"the second", report)
    assert text_of(store, NAME, 100) == b"the second"


@EVERY_STORE
def test_what_is_not_there_is_no_error_but_to_be_read(store: ObjectStore) -> None:
    assert store.head("domains/nothing") is None
    assert list(store.names("domains/")) == []
    assert text_of(store, "domains/nothing", 100) is None
    with pytest.raises(FileNotFoundError):
        list(store.pieces("domains/nothing"))
    store.delete("domains/nothing")


@pytest.mark.parametrize("target", ["moto", "lying", "rclone"], indirect=True)
def test_a_folder_is_not_an_object(store: ObjectStore, report: Report) -> None:
    put(store, b"content", report)
    assert store.head("domains/one") is None
    with pytest.raises(FileNotFoundError):
        list(store.pieces("domains/one"))


@EVERY_STORE
@pytest.mark.parametrize("size", [100, 12 << 20])
def test_a_file_that_is_not_what_was_sealed_leaves_no_object(store: ObjectStore, report: Report, size: int, small_parts: None) -> None:
    other = File(os.urandom(size), sha256="0" * 64)
    with pytest.raises(SourceDiffers):
        store.put(NAME, other.source(report))
    assert store.head(NAME) is None


@EVERY_STORE
def test_a_file_that_became_shorter_leaves_no_object(store: ObjectStore, report: Report) -> None:
    file = File(b"a content")
    os.ftruncate(file.descriptor, 4)
    with pytest.raises(SourceDiffers):
        store.put(NAME, file.source(report))
    assert store.head(NAME) is None


@EVERY_STORE
@pytest.mark.parametrize("content", [b"shorter", b"A content"])
def test_what_arrived_wrong_is_seen(store: ObjectStore, report: Report, content: bytes) -> None:
    put(store, content, report)
    file = File(b"a content")
    with pytest.raises(CopyArrivedWrong):
        verified(store, file.stored, store.checksum_of(file.source(report)), report)


@EVERY_STORE
def test_what_did_not_arrive_is_seen(store: ObjectStore, report: Report) -> None:
    with pytest.raises(CopyArrivedWrong):
        verified(store, File(b"a content").stored, None, report)


@EVERY_STORE
def test_what_is_removed_is_gone(store: ObjectStore, report: Report) -> None:
    put(store, b"content", report)
    store.delete(NAME)
    assert store.head(NAME) is None
    assert list(store.names("")) == []


@EVERY_STORE
def test_the_bytes_keep_the_pace(store: ObjectStore, report: Report) -> None:
    asked: list[int] = []
    report.wait_for_pace = asked.append  # type: ignore[method-assign,assignment] # what the pace is asked for
    put(store, os.urandom(3 << 20), report)
    assert sum(asked) >= 3 << 20


# --- what only some do ------------------------------------------------------------------------------


def test_a_folder_and_rclone_offer_no_lock(folder_target: dict[str, Any], tmp_path: Path) -> None:
    for target in (folder_target, {"kind": "rclone", "remote": f"disk:{tmp_path}/far"}):
        report = Report(key=key_of(target))
        with opened(target, report) as store, pytest.raises(LockNotOffered):
            store.put(NAME, File(b"content").source(report), a_lock())


def test_a_bucket_without_object_lock_offers_none(moto: S3Server) -> None:
    report = Report(key=KEY)
    with opened(moto.target(), report) as store, pytest.raises(LockNotOffered):
        store.put(NAME, File(b"content").source(report), a_lock())


def test_a_lock_is_shown_and_can_be_lengthened(keeping: S3Server) -> None:
    report, lock = Report(key=KEY), a_lock()
    with opened(keeping.target(has_lock=True), report) as store:
        store.put(NAME, File(b"content").source(report), lock)
        there = store.head(NAME)
        assert there is not None
        assert there.lock == lock
        assert there.version is not None
        longer = replace(lock, until=lock.until + timedelta(days=9))
        store.lock(NAME, longer)
        there = store.head(NAME)
        assert there is not None
        assert there.lock == longer


def test_moto_and_s3_say_a_checksum_that_needs_no_read(moto: S3Server, small_parts: None) -> None:
    report = Report(key=KEY)
    with opened(moto.target(), report) as store:
        for size in (100, 12 << 20):
            file = File(os.urandom(size))
            told = store.put(NAME, file.source(report))
            assert verified(store, file.stored, told, report) == "checksum"
            assert store.checksum_of(file.source(report)) == told


def test_parts_that_are_there_are_not_sent_again(moto: S3Server, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    report, target, content = Report(key=KEY), moto.target(), os.urandom(12 << 20)
    sent: list[int] = []
    with opened(target, report) as store:
        client = store._client  # type: ignore[attr-defined] # the one client of the store
        upload = client.upload_part

        def dies_in_the_third(**part: Any) -> Any:
            sent.append(part["PartNumber"])
            if sent == [1, 2, 3]:
                raise KeyboardInterrupt
            return upload(**part)

        monkeypatch.setattr(client, "upload_part", dies_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            store.put(NAME, File(content).source(report))
        assert store.head(NAME) is None
        file = File(content)
        told = store.put(NAME, file.source(report))
        assert sent == [1, 2, 3, 3]
        assert verified(store, file.stored, told, report) == "checksum"
        assert b"".join(store.pieces(NAME)) == content
        assert not client.list_multipart_uploads(Bucket=target["bucket"]).get("Uploads")


def test_a_bucket_that_is_not_there_and_a_wrong_key_are_refusals(moto: S3Server, lying: S3Server) -> None:
    report = Report(key=KEY)
    with opened({**moto.target(), "bucket": "not-there"}, report) as store, pytest.raises(CopyRefused) as refused:
        store.put(NAME, File(b"content").source(report))
    assert refused.value.facts["answer"] == "NoSuchBucket"
    stranger = Report(key=b"access_key_id = a\nsecret_access_key = b\n")
    with opened(lying.target(), stranger) as store, pytest.raises(CopyRefused):
        store.put(NAME, File(b"content").source(stranger))


def test_a_server_that_is_not_there_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(s3_store, "TRIES", 1)
    report = Report(key=KEY)
    with opened({"kind": "s3", "bucket": "bucket", "endpoint": "http://127.0.0.1:9"}, report) as store, pytest.raises(CopyNotAnswering):
        store.head(NAME)
    far = Report(key=b"[far]\ntype = webdav\nurl = http://127.0.0.1:9\n")
    with opened({"kind": "rclone", "remote": "far:there"}, far) as store, pytest.raises(CopyNotAnswering):
        store.put(NAME, File(b"content").source(far))


def test_a_remote_that_no_configuration_names_is_refused(tmp_path: Path) -> None:
    report = Report(key=b"[disk]\ntype = local\n")
    with opened({"kind": "rclone", "remote": "other:there"}, report) as store, pytest.raises(CopyRefused):
        store.head(NAME)


@pytest.mark.parametrize("key", [b"nothing", b"access_key_id = only\n", b"secret_access_key = only\n"])
def test_a_key_without_both_halves_is_refused(key: bytes) -> None:
    with pytest.raises(KeyUnusable):
        s3_store.keys_in(key)


def test_the_keys_may_be_written_as_in_amazons_files() -> None:
    text = b"[default]\naws_access_key_id=a\naws_secret_access_key = b=c\nregion = x\n"
    assert s3_store.keys_in(text) == {"aws_access_key_id": "a", "aws_secret_access_key": "b=c"}


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    report = Report()
    with opened({"kind": "folder", "path": str(tmp_path / "absent")}, report) as store:
        with pytest.raises(CopyNotAnswering):
            store.head(NAME)
        with pytest.raises(CopyNotAnswering):
            store.put(NAME, File(b"content").source(report))
    assert not (tmp_path / "absent").exists()


def test_files_of_a_folder_are_for_the_service_alone_and_drafts_are_removed(folder_target: dict[str, Any]) -> None:
    report, root = Report(), Path(folder_target["path"])
    with opened(folder_target, report) as store:
        put(store, b"content", report)
        draft = root / "domains/one/point/.draft-1-2"
        draft.write_bytes(b"half")
        put(store, b"content again", report)
        assert not draft.exists()
    assert stat.S_IMODE((root / NAME).stat().st_mode) == 0o600


def test_rclone_is_not_told_its_configuration_in_a_file_or_an_argument(tmp_path: Path) -> None:
    report = Report(key=b"[disk]\ntype = local\n")
    with opened({"kind": "rclone", "remote": f"disk:{tmp_path}"}, report) as store:
        put(store, b"content", report)
        words = _words_of_a_read(store)
    assert not any("type" in word for word in words)
    assert list(tmp_path.rglob("*.conf")) == []


def _words_of_a_read(store: ObjectStore) -> list[str]:
    """The command line of rclone while it reads."""
    with store._running(["cat", store._place(NAME)], "reading") as process:  # type: ignore[attr-defined] # of this store
        return [str(word) for word in process.args]


def a_lock() -> Lock:
    return Lock(LockMode.compliance, datetime.now(UTC).replace(microsecond=0) + timedelta(days=1))


@pytest.fixture(autouse=True)
def _nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither keys nor remotes of whoever runs the tests."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("RCLONE_CONFIG", "/dev/null")
    yield
