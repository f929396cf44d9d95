"""A copy in a bucket that speaks S3. Every put carries a SHA-256 that the server checks, and object lock where a lock is asked for."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from service.copies import s3_parts
from service.copies.objects import PIECE_BYTES, Lock, Source, StoredObject
from service.errors import CopyNotAnswering, CopyRefused, CopyToolMissing, KeyUnusable, LockNotOffered, StillpointError
from service.model.copy_target import LockMode, S3Target
from service.repository.report import Report

CONNECT_S, READ_S = 15, 60
"""Seconds that a connection and an answer may take. After that boto3 tries again, and then the store does not answer."""
TRIES = 4
"""Tries of one request, with pauses that grow."""
MAX_ONE_PUT_BYTES = 32 << 20
"""Bytes of an object that is put at once. A larger one is put in parts."""
ABSENT = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound", "MethodNotAllowed", "405"})
"""What a store answers where there is no such object. 405: the newest version is a mark that the object was deleted."""
NO_LOCK = frozenset({"InvalidRequest", "ObjectLockConfigurationNotFoundError", "NotImplemented", "InvalidBucketState", "MissingContentMD5"})
"""What a store answers to a lock that it cannot keep: the bucket has no object lock."""
LOCK_WORDS = ("object lock", "objectlock", "lock configuration", "retention")


class S3Store:
    """`credentials`: the text that the key of the copy names; None: what boto3 finds on the host by itself."""

    def __init__(self, target: S3Target, credentials: bytes | None, report: Report) -> None:
        self.shown = str(target)
        self._bucket = target.bucket
        self._prefix = f"{target.prefix}/" if target.prefix else ""
        self._report = report
        self._client = _client(target, credentials)

    def put(self, name: str, source: Source, lock: Lock | None = None) -> str | None:
        asked = {"Bucket": self._bucket, "Key": self._prefix + name, "Metadata": {"sha256": source.sha256}, **_lock_of(lock)}
        with self._errors("sending", name, is_lock=lock is not None):
            if source.size > MAX_ONE_PUT_BYTES:
                return s3_parts.put(self._client, asked, source)
            content = b"".join(source.pieces())
            body = s3_parts.Body(content, self._report)
            # The algorithm is named as well: a put with a lock needs that.
            self._client.put_object(**asked, Body=body, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum(content))
            return checksum(content)

    def head(self, name: str, version: str | None = None) -> StoredObject | None:
        asked = self._named(name, version)
        try:
            with self._errors("looking at", name):
                answer = self._client.head_object(**asked, ChecksumMode="ENABLED")
        except FileNotFoundError:
            return None
        return StoredObject(
            name,
            answer["ContentLength"],
            s3_parts.without_count(answer.get("ChecksumSHA256")),
            answer.get("VersionId"),
            _lock_in(answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")),
        )

    def pieces(self, name: str, version: str | None = None) -> Iterator[bytes]:
        with self._errors("reading", name):
            answer = self._client.get_object(**self._named(name, version))
            stream = answer["Body"]
            try:
                yield from stream.iter_chunks(PIECE_BYTES)
            finally:
                stream.close()

    def names(self, prefix: str) -> Iterator[str]:
        with self._errors("listing", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            for page in pages:
                self._report.alive()
                for listed in page.get("Contents", ()):
                    yield listed["Key"].removeprefix(self._prefix)

    def checksum_of(self, source: Source) -> str | None:
        if source.size > MAX_ONE_PUT_BYTES:
            return s3_parts.checksum_of(source)
        return checksum(b"".join(source.pieces()))

    def delete(self, name: str, version: str | None = None, *, bypass: bool = False) -> None:
        with self._errors("removing", name):
            self._client.delete_object(**self._named(name, version), **({"BypassGovernanceRetention": True} if bypass else {}))

    def purge(self, prefix: str) -> int:
        left = 0
        for name, version in list(self._versions(prefix)):
            try:
                self.delete(name, version)
            except CopyRefused:
                # Its lock lasts. A rule of the bucket removes it later.
                left += 1
            self._report.alive()
        return left

    def _versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The marks of deletions, too. Nothing where the store cannot list versions: then it keeps none."""
        try:
            with self._errors("listing versions of", prefix):
                for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                    for listed in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                        yield listed["Key"].removeprefix(self._prefix), listed["VersionId"]
        except (CopyRefused, FileNotFoundError):
            return

    def lock(self, name: str, lock: Lock, version: str | None = None, *, bypass: bool = False) -> None:
        retention = {"Mode": lock.mode.value.upper(), "RetainUntilDate": lock.until}
        more = {"BypassGovernanceRetention": True} if bypass else {}
        with self._errors("locking", name, is_lock=True):
            self._client.put_object_retention(**self._named(name, version), Retention=retention, **more)

    def close(self) -> None:
        self._client.close()

    def _named(self, name: str, version: str | None) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name} | ({"VersionId": version} if version is not None else {})

    @contextmanager
    def _errors(self, what: str, name: str, *, is_lock: bool = False) -> Iterator[None]:
        """What boto3 raises, as errors of a copy. Raises FileNotFoundError where there is no such object."""
        from botocore import exceptions

        shown = f"{what} {name}"
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refused(error.response, shown, is_lock=is_lock) from error
        except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
            raise CopyNotAnswering(copy=self.shown, what=shown, reason=_reason(error)) from error
        except exceptions.BotoCoreError as error:
            raise CopyRefused(copy=self.shown, what=shown, reason=_reason(error), answer=type(error).__name__) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise CopyNotAnswering(copy=self.shown, what=shown, reason=_reason(error)) from error

    def _refused(self, response: Mapping[str, Any], what: str, *, is_lock: bool) -> StillpointError | FileNotFoundError:
        answer = response.get("Error", {})
        code, message = str(answer.get("Code", "")), str(answer.get("Message") or "it gave no reason")
        if code in ABSENT and not is_lock:
            return FileNotFoundError(what)
        is_about_lock = any(word in message.lower() for word in LOCK_WORDS)
        if is_lock and (code in ("ObjectLockConfigurationNotFoundError", "NotImplemented") or (code in NO_LOCK and is_about_lock)):
            return LockNotOffered(copy=self.shown, reason=message)
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500:
            return CopyNotAnswering(copy=self.shown, what=what, reason=f"{code}: {message}")
        return CopyRefused(copy=self.shown, what=what, reason=f"{code}: {message}", answer=code)


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def _lock_of(lock: Lock | None) -> dict[str, Any]:
    return {} if lock is None else {"ObjectLockMode": lock.mode.value.upper(), "ObjectLockRetainUntilDate": lock.until}


def _lock_in(mode: str | None, until: datetime | None) -> Lock | None:
    if mode is None or until is None or mode.lower() not in tuple(LockMode):
        return None
    return Lock(LockMode(mode.lower()), until.astimezone(UTC))


def _client(target: S3Target, credentials: bytes | None) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise CopyToolMissing(copy=str(target), tool="boto3") from error
    # A checksum of ours is in every request that carries content. Another one, which boto3 adds to a stream, not every server reads.
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        s3={"addressing_style": "path"} if target.endpoint else {},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=target.endpoint,
            region_name=target.region or ("us-east-1" if target.endpoint else None),
            config=config,
            **(keys_in(credentials) if credentials is not None else {}),
        )
    except Exception as error:
        # Whatever boto3 finds wrong in its settings: there is no base for what it raises here.
        if type(error).__module__.startswith("boto"):
            raise CopyRefused(copy=str(target), what="Beginning", reason=_reason(error), answer=type(error).__name__) from error
        raise


def keys_in(credentials: bytes) -> dict[str, str]:
    """`access_key_id = …` and `secret_access_key = …`, a line each, and perhaps `session_token`; with `aws_` before, as in Amazon's files.

    Raises KeyUnusable.
    """
    names = {"access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key", "session_token": "aws_session_token"}
    keys: dict[str, str] = {}
    for line in credentials.decode().splitlines():
        name, _, value = line.partition("=")
        if (known := names.get(name.strip().lower().removeprefix("aws_"))) is not None:
            keys.setdefault(known, value.strip())
    if missing := {"aws_access_key_id", "aws_secret_access_key"} - keys.keys():
        raise KeyUnusable(key="the key of the copy", reason=f"it has no line {' and no line '.join(sorted(missing))}")
    return keys


def _reason(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2] or type(error).__name__
