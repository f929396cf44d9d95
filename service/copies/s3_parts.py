"""A large object of S3 in parts. What an earlier try has sent, and the server has with the right checksum, is not sent again."""

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

from service.copies.objects import Source, SourceDiffers
from service.repository.report import Report

PART_BYTES = 16 << 20
"""Bytes of one part, which is held in memory. A larger object than MAX_PARTS of them has larger parts."""
MAX_PARTS = 10_000
"""Parts that S3 allows an object."""
MIB = 1 << 20


class Body(io.BytesIO):
    """What is sent. Each read of it says that the step is alive, so that a slow line is not taken for one that hangs."""

    def __init__(self, content: bytes, report: Report) -> None:
        super().__init__(content)
        self._report = report

    def read(self, size: int | None = -1) -> bytes:
        self._report.alive()
        return super().read(size)


def part_bytes_of(size: int) -> int:
    """The same for the same size, so that a later try cuts at the same places."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES, -(-least // MIB) * MIB)


def put(client: Any, asked: dict[str, Any], source: Source) -> str:
    """`asked`: bucket, key, metadata and lock. Returns the checksum of the whole object. Raises SourceDiffers, and what boto3 raises."""
    named = {"Bucket": asked["Bucket"], "Key": asked["Key"]}
    upload = _earlier_upload(client, named)
    there = _parts_there(client, named, upload) if upload is not None else {}
    if upload is None:
        upload = client.create_multipart_upload(**asked, ChecksumAlgorithm="SHA256")["UploadId"]
    parts, digests = [], []
    try:
        for number, content in enumerate(source.pieces(part_bytes_of(source.size)), start=1):
            digest = hashlib.sha256(content).digest()
            sha256 = base64.b64encode(digest).decode()
            etag = _etag_of(there.get(number), content, sha256)
            if etag is None:
                part = {**named, "UploadId": upload, "PartNumber": number, "ChecksumSHA256": sha256}
                etag = client.upload_part(**part, Body=Body(content, source.report))["ETag"]
            parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": sha256})
            digests.append(digest)
    except SourceDiffers:
        client.abort_multipart_upload(**named, UploadId=upload)
        raise
    client.complete_multipart_upload(**named, UploadId=upload, MultipartUpload={"Parts": parts})
    return _of_parts(digests)


def checksum_of(source: Source) -> str:
    """What S3 says of an object of these parts. Raises SourceDiffers."""
    return _of_parts([hashlib.sha256(content).digest() for content in source.pieces(part_bytes_of(source.size))])


def _of_parts(digests: list[bytes]) -> str:
    return base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()


def without_count(checksum: str | None) -> str | None:
    """The checksum of an object of parts, as a store says it: Amazon's ends with a hyphen and the number of parts, others do without."""
    return checksum.partition("-")[0] if checksum is not None else None


def _earlier_upload(client: Any, named: dict[str, str]) -> str | None:
    """The newest of this object that was not completed; older ones are given up. One courier works at a copy at a time.

    None also where the store does not tell: some answer with an error, and some keys have not the right to ask.
    """
    from botocore.exceptions import ClientError

    try:
        answer = client.list_multipart_uploads(Bucket=named["Bucket"], Prefix=named["Key"])
    except ClientError:
        return None
    uploads = [each for each in answer.get("Uploads") or () if each["Key"] == named["Key"]]
    uploads.sort(key=lambda each: str(each.get("Initiated", "")))
    for old in uploads[:-1]:
        client.abort_multipart_upload(**named, UploadId=old["UploadId"])
    return str(uploads[-1]["UploadId"]) if uploads else None


def _parts_there(client: Any, named: dict[str, str], upload: str) -> dict[int, dict[str, Any]]:
    return {part["PartNumber"]: part for page in _pages(client, named, upload) for part in page.get("Parts") or ()}


def _etag_of(part: dict[str, Any] | None, content: bytes, sha256: str) -> str | None:
    """None: the server has not this content as the part, or does not say by which it could be known."""
    if part is None or part["Size"] != len(content):
        return None
    etag, shown = str(part["ETag"]), part.get("ChecksumSHA256")
    # Where no SHA-256 is told, the ETag of a part is its MD5, unless the server encrypts: then it fits nothing, and the part is sent again.
    is_same = shown == sha256 if shown else etag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()
    return etag if is_same else None


def _pages(client: Any, named: dict[str, str], upload: str) -> Iterator[dict[str, Any]]:
    yield from client.get_paginator("list_parts").paginate(**named, UploadId=upload)
