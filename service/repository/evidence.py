"""Checks a sealed point offline, with nothing but its folder and those of the points that it inherits from."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service import bounded_io
from service.errors import KeyUnusable, StillpointError
from service.model import image_header
from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import MANIFEST_FILE, REPOSITORY_FILE, SIGNATURE_FILE
from service.repository import durable, folder, manifests, places, signing
from service.repository.hand import Hand, Progress
from service.repository.keys import Key
from service.repository.points import MAX_SIGNATURE_BYTES
from service.repository.seal import stored_files
from service.repository.signing import SignatureState

DEPTH = 3
"""Folders between a repository and the files of a point: `domains`, the domain, the point."""
SILENCE_S = 600.0
"""Seconds without a sign of life from the process that reads the images. After that the content counts as not checked."""

OnProgress = Callable[[Progress], None] | None


class Subject(StrEnum):
    place = "place"
    """The folder is where its manifest says, in the repository that it names."""
    manifest = "manifest"
    signature = "signature"
    files = "files"
    """Each file with its bytes, and nothing beside them."""
    parent = "parent"
    image = "image"
    """What the image names as the file below it."""
    content = "content"
    """What the guest saw, read through all images."""


@dataclass(frozen=True)
class Finding:
    """`is_good`: None was not checked, and `detail` says why. `place`: a file or folder, relative to the repository.

    `key_id`: of a signature that fits, the key that made it.
    """

    subject: Subject
    place: str
    is_good: bool | None
    detail: str
    key_id: str | None = None


def check_folder(
    point: Path, key: Key | None, *, trusted: Mapping[str, bytes] | None = None, on_progress: OnProgress = None
) -> list[Finding]:
    """Every finding about the point in this folder, and about those that it inherits from. It is good if none of them is bad.

    `key`: without it the content of encrypted images is not checked; their stored bytes are. `trusted`: the public keys, by their ids,
    one of which must have signed. None: any key may have signed, and the findings name it.
    """
    absolute = Path(os.path.abspath(point))  # noqa: PTH100 - `resolve` would follow links
    names = absolute.parts[-DEPTH:]
    if len(absolute.parts) <= DEPTH:
        return [Finding(Subject.place, str(absolute), False, "a point is in a folder REPOSITORY/domains/DOMAIN/POINT")]
    evidence = _Evidence(str(absolute.parents[DEPTH - 1]), trusted)
    evidence.look("/".join(names))
    if all(finding.is_good is not False for finding in evidence.findings):
        evidence.read("/".join(names), key, on_progress)
    else:
        # What is damaged is shown file by file. Its images are not read: they may be read wrong.
        evidence.read_files(on_progress)
    return evidence.findings


def is_good(findings: list[Finding]) -> bool:
    return all(finding.is_good is not False for finding in findings)


class _Evidence:
    def __init__(self, root: str, trusted: Mapping[str, bytes] | None) -> None:
        self.findings: list[Finding] = []
        self._root = root
        self._repository_id: str | None = None
        self._trusted = trusted
        self._points: dict[str, Manifest] = {}

    def look(self, relative: str) -> None:
        """Manifests, signatures, names and sizes: all that is fast."""
        self._check_repository_file()
        waiting, seen = [relative], {relative}
        while waiting:
            at = waiting.pop()
            manifest = self._manifest(at)
            if manifest is None:
                continue
            self._points[at] = manifest
            for disk in manifest.disks:
                if disk.parent_folder is not None and disk.parent_folder not in seen:
                    seen.add(disk.parent_folder)
                    waiting.append(disk.parent_folder)
        for at, manifest in self._points.items():
            self._check_names(at, manifest)
            for disk in manifest.disks:
                self._check_parent(at, manifest, disk)
                self._check_image(at, disk)

    def read(self, relative: str, key: Key | None, on_progress: OnProgress) -> None:
        """Every byte of the point and its parents, and what the guest saw."""
        disks = self._points[relative].disks
        if key is None and any(disk.is_encrypted for disk in disks):
            self.read_files(on_progress)
            self._unchecked(relative, "it is encrypted, and no key was given; the stored bytes need none")
            return
        arguments = {"path": self._root, "folder": relative, "checks": ["bytes"], "encrypted": any(disk.is_encrypted for disk in disks)}
        try:
            with Hand(self._root, key=key, silence_s=SILENCE_S) as hand:
                # On a machine without libnbd the stored bytes can be checked nevertheless.
                able = hand.call("able", {})
                if "verify_point" not in able["steps"]:
                    self.read_files(on_progress)
                    self._unchecked(relative, able["why_missing"])
                    return
                proof = hand.call("verify_point", arguments, on_progress=on_progress)["bytes"]
        except KeyUnusable as error:
            self._add(Subject.content, relative, False, error.detail)
            return
        for fault in proof["faults"]:
            self._add(Subject.content, "/".join(part for part in (fault["folder"], fault["file"]) if part), False, fault["reason"])
        if proof["ok"]:
            self._add(Subject.files, relative, True, f"{proof['files']} files, {proof['bytes']} bytes, with those of its parents")
            for disk in disks:
                self._add(Subject.content, f"{relative}/{disk.file}", True, f"{disk.virtual_size} bytes are what the guest saw")

    def read_files(self, on_progress: OnProgress) -> None:
        """The stored bytes alone."""
        every = [(at, file) for at, manifest in self._points.items() for file in manifest.files]
        total, done = sum(file.bytes for _, file in every), 0
        for at, file in every:
            self._check_bytes(at, file)
            done += file.bytes
            if on_progress is not None:
                on_progress(Progress(done, total, None))

    def _unchecked(self, relative: str, reason: str) -> None:
        self._add(Subject.content, relative, None, reason)

    def _add(self, subject: Subject, place: str, is_good: bool | None, detail: str) -> None:
        self.findings.append(Finding(subject, bounded_io.printable(place), is_good, detail))

    def _check_repository_file(self) -> None:
        """A folder that was copied out of its repository can be checked without it."""
        if not Path(self._root, REPOSITORY_FILE).exists():
            self._add(Subject.place, REPOSITORY_FILE, None, "there is none above the folder")
            return
        try:
            with places.opened_folder(self._root) as opened:
                self._repository_id = folder.description(opened, self._root)["id"]
        except StillpointError as error:
            self._add(Subject.place, REPOSITORY_FILE, False, error.detail)

    def _manifest(self, at: str) -> Manifest | None:
        shown = Path(self._root, at)
        place = f"{at}/{MANIFEST_FILE}"
        try:
            with places.opened_folder(self._root, at) as opened:
                text = places.text_of(opened, MANIFEST_FILE, shown / MANIFEST_FILE, manifests.MAX_MANIFEST_BYTES)
                signature = _signature(opened, shown)
            manifest = manifests.parsed(text)
        except FileNotFoundError:
            self._add(Subject.manifest, place, False, "it is missing")
            return None
        except StillpointError as error:
            self._add(Subject.manifest, place, False, error.detail)
            return None
        is_canonical = signing.is_canonical(text.encode())
        self._add(Subject.manifest, place, is_canonical, "canonical JSON" if is_canonical else "it is not canonical JSON (RFC 8785)")
        self._check_signature(at, text.encode(), signature, manifest)
        self._check_place(at, manifest)
        return manifest

    def _check_signature(self, at: str, content: bytes, signature: str | None, manifest: Manifest) -> None:
        place, signer = f"{at}/{SIGNATURE_FILE}", signing.signer(signature)
        match signing.check(content, signature, self._trusted or {}):
            case SignatureState.missing:
                self._add(Subject.signature, place, False, "it is missing")
            case SignatureState.wrong:
                self._add(Subject.signature, place, False, f"it does not fit the manifest (key {signer})")
            case SignatureState.unknown_key if self._trusted is not None:
                self._add(Subject.signature, place, False, f"signed by key {signer}, which is not one of the trusted keys")
            case _ if manifest.key_id not in (None, signer):
                self._add(Subject.signature, place, False, f"signed by key {signer}, and the manifest names key {manifest.key_id}")
            case _:
                self.findings.append(Finding(Subject.signature, place, True, f"signed by key {signer}", signer))

    def _check_place(self, at: str, manifest: Manifest) -> None:
        if manifest.folder != at:
            # An older point under the name of a newer one has a right signature, too.
            self._add(Subject.place, at, False, f"its manifest is that of {manifest.folder}")
        elif self._repository_id not in (None, manifest.repository_id):
            self._add(Subject.place, at, False, f"its manifest names the repository {manifest.repository_id}, not {self._repository_id}")
        else:
            self._add(Subject.place, at, True, f"{manifest.domain_name}, {manifest.point_in_time_at}, point {manifest.point_id}")

    def _check_names(self, at: str, manifest: Manifest) -> None:
        """Names and sizes, and that there is nothing else: a file that nobody sealed may be read by mistake."""
        try:
            with places.opened_folder(self._root, at) as opened:
                there = dict(stored_files(opened, Path(self._root, at), with_marks=True))
        except (OSError, StillpointError) as error:
            self._add(Subject.files, at, False, _reason(error))
            return
        sealed = {file.name: file.bytes for file in manifest.files}
        for name in sorted(there.keys() - sealed.keys()):
            self._add(Subject.files, f"{at}/{name}", False, "the manifest does not name it")
        for name in sorted(sealed.keys() - there.keys()):
            self._add(Subject.files, f"{at}/{name}", False, "it is missing")
        for name in sorted(sealed.keys() & there.keys()):
            if there[name] != sealed[name]:
                self._add(Subject.files, f"{at}/{name}", False, f"it has {there[name]} bytes, and {sealed[name]} were sealed")
        for disk in manifest.disks:
            self._check_named(at, manifest, disk)

    def _check_named(self, at: str, manifest: Manifest, disk: DiskOfPoint) -> None:
        checksums = {file.name: file.sha256 for file in manifest.files}
        for name in sorted({disk.file, disk.blocks_file} - checksums.keys()):
            self._add(Subject.files, f"{at}/{name}", False, "the manifest has no checksum of this file of a disk")
        # Both are SHA-256 of the same bytes.
        if checksums.get(disk.blocks_file, disk.content) != disk.content:
            self._add(Subject.content, f"{at}/{disk.blocks_file}", False, "the manifest has another checksum of the content")

    def _check_parent(self, at: str, manifest: Manifest, disk: DiskOfPoint) -> None:
        if disk.parent_folder is None:
            if disk.parent is not None:
                self._add(Subject.parent, f"{at}/{disk.file}", False, f"the manifest does not say where its parent {disk.parent} is")
            return
        parent = self._points.get(disk.parent_folder)
        place = disk.parent_folder
        if parent is None:
            self._add(Subject.parent, place, False, f"{at}/{disk.file} needs it, and it is missing or cannot be read")
        elif parent.point_id != disk.parent:
            self._add(Subject.parent, place, False, f"it is point {parent.point_id}, and {at}/{disk.file} needs point {disk.parent}")
        elif parent.domain_id != manifest.domain_id or not any(each.target == disk.target for each in parent.disks):
            self._add(Subject.parent, place, False, f"it has no disk {disk.target} of domain {manifest.domain_id}")
        else:
            self._add(Subject.parent, place, True, f"it has what {at}/{disk.file} needs")

    def _check_image(self, at: str, disk: DiskOfPoint) -> None:
        """QEMU follows what the image names below it: it must be the parent, and nothing else of the host."""
        place = f"{at}/{disk.file}"
        try:
            header = self._header(place)
        except FileNotFoundError:
            return
        except (OSError, StillpointError) as error:
            self._add(Subject.image, place, False, _reason(error))
            return
        expected = self._below(disk)
        if header is None:
            self._add(Subject.image, place, False, "it is not a qcow2")
        elif header.has_data_file:
            self._add(Subject.image, place, False, "its data are in a file elsewhere")
        elif header.below != expected or (expected is not None and header.below_format not in ("qcow2", None)):
            below = "nothing" if header.below is None else bounded_io.printable(header.below)
            self._add(Subject.image, place, False, f"it names {below} below it, and {expected or 'nothing'} is right")
        elif header.virtual_size != disk.virtual_size:
            self._add(Subject.image, place, False, f"it shows {header.virtual_size} bytes, and the disk has {disk.virtual_size}")
        elif (header.encryption is not None) != disk.is_encrypted:
            self._add(Subject.image, place, False, "the manifest is wrong on whether it is encrypted")
        else:
            self._add(Subject.image, place, True, f"it names {expected or 'nothing'} below it")

    def _below(self, disk: DiskOfPoint) -> str | None:
        if disk.parent_folder is None:
            return None
        parent = self._points.get(disk.parent_folder)
        files = [each.file for each in parent.disks if each.target == disk.target] if parent is not None else []
        return f"../{Path(disk.parent_folder).name}/{files[0] if files else disk.file}"

    def _header(self, place: str) -> image_header.ImageHeader | None:
        with self._opened(place) as descriptor:
            return image_header.parse(os.pread(descriptor, image_header.READ_BYTES, 0))

    def _check_bytes(self, at: str, file: StoredFile) -> None:
        place = f"{at}/{file.name}"
        try:
            with self._opened(place) as descriptor:
                sha256, count = durable.sha256_of(descriptor, lambda _: None)
        except FileNotFoundError:
            # It was told with the names.
            return
        except (OSError, StillpointError) as error:
            self._add(Subject.files, place, False, _reason(error))
            return
        if sha256 != file.sha256:
            self._add(Subject.files, place, False, f"its SHA-256 is {sha256}, and {file.sha256} was sealed")
        else:
            self._add(Subject.files, place, True, f"{count} bytes")

    @contextmanager
    def _opened(self, place: str) -> Iterator[int]:
        between, name = places.split(place)
        with places.opened_folder(self._root, between) as opened:
            descriptor = places.opened_file(opened, name, Path(self._root, place))
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _reason(error: OSError | StillpointError) -> str:
    return error.detail if isinstance(error, StillpointError) else bounded_io.reason_of(error)


def _signature(opened: int, shown: Path) -> str | None:
    try:
        return places.text_of(opened, SIGNATURE_FILE, shown / SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
