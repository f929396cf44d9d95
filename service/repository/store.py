"""A repository as the worker sees it: typed calls, each done by the hand. No call here touches the repository itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service import log
from service.errors import RepositoryFull, RepositoryGone, RepositoryUnusable, SignatureWrong, StillpointError
from service.model.manifest import Manifest, StoredFile
from service.model.repository import DEFINITION_FILE, MANIFEST_FILE, STATE_FILE, RepositoryState
from service.repository import manifests, signing
from service.repository.hand import SILENCE_S, Hand, Progress, error_of
from service.repository.keys import Key
from service.repository.signing import SignatureState, SigningKey

_logger = log.get(__name__)

OnProgress = Callable[[Progress], None] | None
SafePoint = Callable[[], None] | None
MAX_DEFINITION_BYTES = 4 << 20
"""Bytes of the definition of a domain. A larger file is not one."""
DONE_AGAIN = frozenset(
    {
        *("look", "list_points", "read_point", "read_file", "list_keys", "verify_point", "check_parent", "inspect_source", "compare_disk"),
        *("check_key", "heal_file", "heal_notes"),
        *("begin_point", "put_file", "put_state", "put_key", "copy_disk", "seal", "publish", "drop_partial", "sweep"),
        *("look_at_files", "open_to_qemu", "close_to_qemu", "make_whole", "stand_on_again"),
        *("measure_merge", "begin_merge", "merge_disk", "take_over", "put_in_place"),
    }
)
"""Steps that may be done twice: they only read, or they leave the same behind. If the process dies in one, a new process does it again."""


@dataclass(frozen=True)
class RepositoryLook:
    """`why_not`: RepositoryFull or RepositoryReadOnly where the repository cannot be written. `place`: device and inode of the folder."""

    id: str
    version: int
    free_bytes: int
    total_bytes: int
    place: Sequence[int]
    is_writable: bool
    why_not: StillpointError | None

    @property
    def state(self) -> RepositoryState:
        if self.why_not is None:
            return RepositoryState.ready
        return RepositoryState.full if isinstance(self.why_not, RepositoryFull) else RepositoryState.read_only

    def require_space(self, path: str, needed_bytes: int = 0) -> None:
        """Raises RepositoryFull, RepositoryReadOnly."""
        if self.why_not is not None:
            raise self.why_not
        if self.free_bytes < needed_bytes:
            raise RepositoryFull(path=path, needed_bytes=needed_bytes, free_bytes=self.free_bytes)


@dataclass(frozen=True)
class Begun:
    """`partial`: the folder of the unfinished point, relative to the repository. `is_published`: it was sealed by an earlier try."""

    partial: str
    is_resumed: bool
    is_published: bool


@dataclass(frozen=True)
class StoredPoint:
    """A folder where a sealed point should be. `manifest` is None exactly where `error` is not.

    `digest`: of the manifest as stored. `is_signed`: None without a signature, False for a wrong one.
    """

    folder: str
    manifest: Manifest | None
    error: StillpointError | None
    is_signed: bool | None = None
    signature: SignatureState = SignatureState.missing
    digest: str | None = None
    key_id: str | None = None


class Repository:
    """A context: leaving it ends the process. For one thread; `hand.set_pace` is for others.

    `id`: None takes the repository that is there. `safe_point`: called during every call, see `Hand.call`.
    `known_keys`: the public keys, by their ids, that make a signature a known one.
    """

    def __init__(
        self,
        path: str,
        id: str | None,
        key: Key | None = None,
        *,
        silence_s: float = SILENCE_S,
        safe_point: SafePoint = None,
        known_keys: Mapping[str, bytes] | None = None,
    ) -> None:
        self.path = path
        self.id = id
        self.hand = Hand(path, key=key, silence_s=silence_s)
        self.safe_point = safe_point
        self.known_keys = dict(known_keys or {})
        #: By folder, the stamps of the points that were published here (`service.repository.stamps`).
        self.stamps: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hand.close()

    def call(
        self, step: str, arguments: Mapping[str, Any], *, on_progress: OnProgress = None, silence_s: float | None = None
    ) -> dict[str, Any]:
        """A step with the path of this repository. Raises as `Hand.call`.

        The process may be killed from outside, as by a kernel that is short of memory: see DONE_AGAIN.
        """
        everything = {"path": self.path, **arguments}
        try:
            return self.hand.call(step, everything, silence_s=silence_s, on_progress=on_progress, safe_point=self.safe_point)
        except RepositoryUnusable as error:
            if step not in DONE_AGAIN:
                raise
            _logger.warning("repository_process_failed", path=self.path, step=step, reason=error.facts["reason"])
        return self.hand.call(step, everything, silence_s=silence_s, on_progress=on_progress, safe_point=self.safe_point)

    def look(self) -> RepositoryLook:
        """Raises RepositoryGone, RepositoryBad, RepositoryNotAnswering, RepositoryRefused; not for one that only cannot be written."""
        answer = self.call("look", {"id": self.id})
        why_not = answer.pop("why_not")
        return RepositoryLook(**answer, why_not=None if why_not is None else error_of(why_not["code"], why_not["facts"], self.path, "look"))

    def must_have_stayed(self, before: RepositoryLook) -> None:
        """After a read that began with the look `before`. Where a file seemed to be missing, only the whole repository may have been away.

        Raises RepositoryGone, also if another filesystem is there now; and what `look` raises.
        """
        if list(self.look().place) != list(before.place):
            raise RepositoryGone(path=self.path, reason="it was mounted again while it was read")

    def create(self) -> None:
        """Make the folder this repository, if it is absent or empty. Raises RepositoryBad, RepositoryGone, and others."""
        self.call("create", {"id": self.id})

    def begin_point(self, domain_id: str, name: str, owner: str | None = None) -> Begun:
        """`owner`: the id of the service's signing key, by which `sweep` knows the folder. Raises RepositoryGone, RepositoryBad."""
        answer = self.call("begin_point", {"id": self.id, "domain_id": domain_id, "name": name, "owner": owner})
        return Begun(answer["partial"], answer["resumed"], answer["is_published"])

    def put_text(self, partial: str, name: str, text: str) -> int:
        """Bytes that were stored."""
        return int(self.call("put_file", {"partial": partial, "name": name, "text": text})["bytes"])

    def put_file(self, partial: str, name: str, source: str | Path) -> int:
        """Bytes that were stored. `source`: a file of the host, such as NVRAM."""
        return int(self.call("put_file", {"partial": partial, "name": name, "source": str(source)})["bytes"])

    def put_state(self, partial: str, text_files: Mapping[str, str], files: Mapping[str, str | Path]) -> int:
        """Texts, and files of the host, by their names, in one archive that is encrypted with the key. Bytes that were stored."""
        texts = [{"name": name, "text": text} for name, text in text_files.items()]
        sources = [{"name": name, "source": str(source)} for name, source in files.items()]
        return int(self.call("put_state", {"partial": partial, "name": STATE_FILE, "files": [*texts, *sources]})["bytes"])

    def check_key(self, domain_id: str) -> None:
        """Whether the key is that of the points which are there, those of this domain first. Raises KeyUnusable."""
        self.call("check_key", {"domain_id": domain_id})

    def seal(
        self,
        partial: str,
        files: Sequence[str] | None = None,
        *,
        known: Mapping[str, str] | None = None,
        on_progress: OnProgress = None,
    ) -> tuple[StoredFile, ...]:
        """Checksums of all files, which are on the disk then. `files`: what must be there, and nothing else. None: whatever is there.

        `known`: SHA-256 by names of files of which they were taken while they were written. Those files are not read again.
        """
        arguments = {"partial": partial, "files": None if files is None else list(files), "known": dict(known or {})}
        answer = self.call("seal", arguments, on_progress=on_progress)
        return tuple(StoredFile(file["name"], file["bytes"], file["sha256"]) for file in answer["files"])

    def publish(self, partial: str, manifest: Manifest, signing_key: SigningKey | None) -> str:
        """Sign and publish. The digest of the manifest. With the same manifest it can be tried again after any error."""
        content = signing.canonical(manifest)
        if signing_key is not None:
            self.call("put_key", {"key_id": signing_key.id, "text": signing_key.public_text})
        signature = signing_key.sign(content) if signing_key is not None else None
        texts = {"manifest": content.decode(), "signature": signature}
        answer = self.call("publish", {"partial": partial, "folder": manifest.folder, **texts})
        self.stamps |= {manifest.folder: answer["stamp"]} if "stamp" in answer else {}
        return signing.digest(content)

    def put_in_place(self, partial: str, manifest: Manifest, signing_key: SigningKey, *, replaces: str) -> str:
        """Sign, and put the partial folder in the place of the point. Returns its stamp. `replaces`: the digest of the manifest there.

        With the same manifest it can be tried again after any error. Raises RepositoryBad (the point has another manifest), and others.
        """
        content = signing.canonical(manifest)
        self.call("put_key", {"key_id": signing_key.id, "text": signing_key.public_text})
        texts = {"manifest": content.decode(), "signature": signing_key.sign(content)}
        return str(self.call("put_in_place", {"partial": partial, "folder": manifest.folder, "replaces": replaces, **texts})["stamp"])

    def drop_partial(self, partial: str) -> bool:
        """Whether it was there."""
        return bool(self.call("drop_partial", {"partial": partial})["dropped"])

    def sweep(self, keep: Sequence[str], owner: str | None = None) -> list[str]:
        """Remove partial folders that were not changed for a day. Returns those that were removed."""
        return list(self.call("sweep", {"keep": list(keep), "owner": owner})["dropped"])

    def remove_point(self, folder: str, *, on_progress: OnProgress = None) -> int:
        """Bytes that its files took. 0: it is removed already. Raises PointNeeded, RepositoryGone, RepositoryReadOnly and others."""
        return int(self.call("remove_point", {"id": self.id, "folder": folder}, on_progress=on_progress)["freed_bytes"])

    def points(self) -> list[StoredPoint]:
        """Every folder of a point, also those that cannot be read."""
        return [self._stored(listed) for listed in self.call("list_points", {})["points"]]

    def point(self, folder: str) -> Manifest:
        """Raises PointDamaged, ForeignEntry, VersionUnknown; SignatureWrong for a signature that is there and wrong."""
        answer = self.call("read_point", {"folder": folder})
        content, signature = answer["manifest"].encode(), answer["signature"]
        if signing.check(content, signature, self.known_keys) is SignatureState.wrong:
            reason = f"the signature by key {signing.signer(signature)} does not fit"
            raise SignatureWrong(path=str(Path(self.path, folder, MANIFEST_FILE)), reason=reason)
        return manifests.parsed(answer["manifest"])

    def definition(self, folder: str) -> str:
        """The XML of the domain. Raises PointDamaged, ForeignEntry."""
        return str(self.call("read_file", {"folder": folder, "name": DEFINITION_FILE, "limit": MAX_DEFINITION_BYTES})["text"])

    def copy_out(self, folder: str, name: str, target: str | Path, *, on_progress: OnProgress = None) -> int:
        """Bytes. Raises PointDamaged, TargetFull, StorageRefused (also for a target that is there)."""
        answer = self.call("copy_out", {"folder": folder, "name": name, "target": str(target)}, on_progress=on_progress)
        return int(answer["bytes"])

    def public_keys(self) -> dict[str, bytes]:
        """The keys that are kept in the repository itself, by their ids. They show who signed, and not that the signer is trusted."""
        keys = {}
        for name, text in self.call("list_keys", {})["keys"].items():
            try:
                keys[name] = signing.public_key(text)
            except ValueError:
                continue
        return keys

    def _stored(self, listed: Mapping[str, Any]) -> StoredPoint:
        folder, signature = listed["folder"], listed["signature"]
        if listed["error"] is not None:
            return StoredPoint(folder, None, error_of(listed["error"]["code"], listed["error"]["facts"], self.path, "list_points"))
        content = listed["manifest"].encode()
        state = signing.check(content, signature, self.known_keys)
        is_signed = None if state is SignatureState.missing else state is not SignatureState.wrong
        try:
            manifest, error = manifests.parsed(listed["manifest"]), None
        except StillpointError as unreadable:
            manifest, error = None, unreadable
        return StoredPoint(folder, manifest, error, is_signed, state, signing.digest(content), signing.signer(signature))
