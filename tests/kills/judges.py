"""What must be true of the yard, asked of the files first and last of the records. Each sentence that comes out is a breach."""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from service.repository import signing
from service.repository.signing import SignatureState
from tests import nobodys_files
from tests.chaos.backups.invariants import content_of
from tests.kills.yard import Yard
from tests.repository.disks import named, qemu

ROUNDS_OF_A_SOCKET = 20
"""Rounds after which the folder of a socket, that a killed process has left, must be gone."""


def listed_as_good_and_is_not(yard: Yard) -> Iterator[str]:
    """Every stored byte and the signature of each point, and what QEMU shows of it."""
    for point_id, row in yard.on_record().items():
        if row.state == "sealed":
            yield from (f"{row.folder} is listed as good: {wrong}" for wrong in wrong_with(yard.sealed.path / str(row.folder)))
            yield from _shows_something_else(yard, point_id, yard.sealed.path / str(row.folder), row.manifest_digest)


def wrong_with(folder: Path) -> Iterator[str]:
    """By its manifest, without any code of the service but the check of a signature."""
    try:
        text = (folder / "manifest.json").read_bytes()
        signature = (folder / "manifest.sig").read_text()
    except OSError as error:
        yield str(error)
        return
    if signing.check(text, signature, {}) not in (SignatureState.good, SignatureState.unknown_key):
        yield "its signature does not fit"
    yield from (f"{name} is not what was sealed" for name in _bad_files(folder, json.loads(text)))


def _bad_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes() if (folder / file["name"]).is_file() else b""
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            yield str(file["name"])


def _shows_something_else(yard: Yard, point_id: str, folder: Path, digest: str | None) -> Iterator[str]:
    text = (folder / "manifest.json").read_bytes() if (folder / "manifest.json").exists() else b""
    if signing.digest(text) != digest:
        yield f"{folder.name}: the manifest is not the one on record"
        return
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "seen.raw"
        try:
            qemu("qemu-img", "convert", "-O", "raw", named(folder / "vda.qcow2"), raw)
        except AssertionError as error:
            yield f"{folder.name}: QEMU cannot read it: {error}"
            return
        if content_of(raw) != yard.seen[point_id]:
            yield f"{folder.name}: the guest sees something else than when it was sealed"


def lost(yard: Yard, kept: Collection[str]) -> Iterator[str]:
    """A point that is called bad is lost as well: every one is good at the end of a round."""
    on_record = yard.on_record()
    for point_id in kept:
        if point_id not in on_record or not (yard.folder(point_id) / "manifest.json").exists():
            yield f"{yard.folder(point_id).name} was to stay: on record {point_id in on_record}, there {yard.folder(point_id).exists()}"
        elif on_record[point_id].state != "sealed":
            yield f"{yard.folder(point_id).name} is {on_record[point_id].state}, and nothing is wrong with it"


def unlisted(yard: Yard) -> Iterator[str]:
    listed = {str(row.folder) for row in yard.on_record().values()}
    published = {str(file.parent.relative_to(yard.sealed.path)) for file in yard.sealed.path.glob("domains/*/[!.]*/manifest.json")}
    if listed != published:
        yield f"there and not on record: {sorted(published - listed)}; on record and not there: {sorted(listed - published)}"


def whole_on_the_copy_and_is_not(yard: Yard) -> Iterator[str]:
    for row in yard.on_copy().values():
        folder = yard.place / row.folder
        if row.state != "whole":
            continue
        yield from (f"{row.folder} is listed as whole on the copy: {wrong}" for wrong in wrong_with(folder))
        here = yard.sealed.path / row.folder
        if (here / "manifest.json").exists() and (text := (here / "manifest.json").read_bytes()) == (folder / "manifest.json").read_bytes():
            for name in ["manifest.sig", *(file["name"] for file in json.loads(text)["files"])]:
                if (here / name).is_file() and (here / name).read_bytes() != (folder / name).read_bytes():
                    yield f"{row.folder}/{name} is another file on the copy"


def nobodys(yard: Yard) -> Iterator[str]:
    """When no job works. What processes have left that died must be gone, or be gone after the sweep of the next day."""
    half_sent = [row.folder for row in yard.on_copy().values() if row.state != "whole"]
    places = {
        "on the copy": nobodys_files.in_repository(yard.place, half_sent),
        "in the state folder": nobodys_files.in_state_folder(yard.state_dir),
        "in the folder for temporary files": _left_in(yard),
    }
    if nobodys_files.in_repository(yard.sealed.path):
        nobodys_files.make_old(yard.sealed.path)
        with yard.sealed.opened() as repository:
            repository.sweep([], yard.sealed.signing_key.id)
        places["in the repository"] = nobodys_files.in_repository(yard.sealed.path)
    yield from (f"nobody owns {files} {place}" for place, files in places.items() if files)


def _left_in(yard: Yard) -> list[str]:
    """The folder of a socket, as old as one that was left, is removed by a next process that reads an image: within a few rounds."""
    there = {each.name for each in yard.temporary.iterdir()}
    sockets = {name for name in there if name.startswith("stillpoint-nbd-")}
    for name in sockets:
        os.utime(yard.temporary / name, (0, 0))
    yard.left_sockets.update(sockets)
    return sorted(name for name in there if name not in sockets or yard.left_sockets[name] > ROUNDS_OF_A_SOCKET)
