"""The copy of a yard in a bucket of moto's S3 server, shown as a folder to the judges."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.copies import servers
from tests.copies.servers import KEY, S3Server


class Bucket:
    def __init__(self, server: S3Server) -> None:
        self.target = server.target()
        self._client = server.client()

    def write_key(self, file: Path) -> str:
        """The reference of the credentials, which are in the file."""
        file.write_bytes(KEY)
        return f"file:{file}"

    def show(self, place: Path) -> None:
        """Every object as a file, and every upload that was begun and not ended."""
        shutil.rmtree(place)
        place.mkdir()
        for name in self._names():
            file = place / name.removeprefix(f"{self.target['prefix']}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(self.target["bucket"], name, str(file))
        for upload in self._client.list_multipart_uploads(Bucket=self.target["bucket"]).get("Uploads", ()):
            (place / f".upload-{upload['UploadId']}").touch()

    def _names(self) -> Iterator[str]:
        pages: Any = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.target["bucket"])
        for page in pages:
            yield from (entry["Key"] for entry in page.get("Contents", ()))


@contextmanager
def bucket() -> Iterator[Bucket]:
    with servers.moto() as server:
        yield Bucket(server)
