"""The worker's side of a courier: typed calls, each done by a process of its own, which is killed when it is silent for too long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from service import log
from service.copies.objects import Lock
from service.copies.stores import document_of, lock_of
from service.errors import CopyNotAnswering, CopyUnusable, RepositoryNotAnswering, RepositoryUnusable
from service.model.copy_target import CopyTarget, LockMode
from service.model.immutability import Immutability
from service.repository.hand import Hand, Progress
from service.repository.keys import Key

PROGRAM = "service.copies.courier_process"
SILENCE_S = 300.0
"""Seconds without a sign from the courier. It is long, as a request is tried several times, and a store far away may be slow."""

_logger = log.get(__name__)

OnProgress = Callable[[Progress], None] | None
SafePoint = Callable[[], None] | None


@dataclass(frozen=True)
class Sent:
    """`verified_by`: `checksum`, as the store says it, or `content`, which was read back. `lock`: as the store shows it."""

    bytes: int
    sent_bytes: int
    files: int
    verified_by: str
    lock: Lock | None


@dataclass(frozen=True)
class Proven:
    """`answers`: one for each attack. `why_not`: why the store has no lock that could be attacked."""

    immutability: Immutability
    answers: tuple[Mapping[str, Any], ...]
    why_not: str | None


class Courier:
    """A context: leaving it ends the process. For one thread.

    `path`, `repository_id`: the repository. `key`: names the credentials of the copy. `pace`: bytes a second, None: no limit.
    """

    def __init__(
        self,
        path: str,
        repository_id: str,
        target: CopyTarget,
        key: Key | None = None,
        *,
        pace: int | None = None,
        silence_s: float = SILENCE_S,
        safe_point: SafePoint = None,
    ) -> None:
        self.shown = str(target)
        self._place = {"path": path, "id": repository_id, "target": target.as_document()}
        self._safe_point = safe_point
        self.hand = Hand(self.shown, key=key, silence_s=silence_s, program=PROGRAM)
        self.hand.set_pace(pace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hand.close()

    def call(self, step: str, arguments: Mapping[str, Any], *, on_progress: OnProgress = None) -> dict[str, Any]:
        """Raises the errors of the copy and of the repository, CopyNotAnswering, CopyUnusable, KeyUnusable.

        The process may be killed from outside, as by a kernel that is short of memory: a new one does the step again. Every step leaves
        the same behind, however often it is done.
        """
        try:
            return self._call(step, arguments, on_progress)
        except CopyUnusable as error:
            _logger.warning("copy_process_failed", copy=self.shown, step=step, reason=error.facts["reason"])
        return self._call(step, arguments, on_progress)

    def _call(self, step: str, arguments: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
        try:
            return self.hand.call(step, {**self._place, **arguments}, on_progress=on_progress, safe_point=self._safe_point)
        except RepositoryNotAnswering as error:
            if error.facts["path"] != self.shown:
                raise
            reason = f"nothing came for {error.facts['silent_s']:.0f} s"
            raise CopyNotAnswering(copy=self.shown, what=step, reason=reason) from error
        except RepositoryUnusable as error:
            raise CopyUnusable(copy=self.shown, step=step, reason=error.facts["reason"]) from error

    def open(self, *, is_known: bool) -> bool:
        """Whether the copy is new. `is_known`: it was opened before. Raises CopyBad."""
        return bool(self.call("open_copy", {"is_known": is_known})["is_new"])

    def send(
        self, folder: str, digest: str | None, lock: Lock | None, *, may_lengthen: bool = False, on_progress: OnProgress = None
    ) -> Sent:
        """`may_lengthen`: of what an earlier try has sent, see `service.copies.sending`. Raises PointDamaged, CopyArrivedWrong."""
        arguments = {"folder": folder, "manifest_digest": digest, "lock": document_of(lock), "may_lengthen": may_lengthen}
        answer = self.call("send_point", arguments, on_progress=on_progress)
        return Sent(**{**answer, "lock": lock_of(answer["lock"])})

    def lengthen(self, folder: str, lock: Lock) -> int:
        """How many objects of the point got a longer lock."""
        return int(self.call("lengthen", {"folder": folder, "lock": document_of(lock)})["changed"])

    def check(self, folder: str, digest: str | None, *, on_progress: OnProgress = None) -> int:
        """Bytes that were read back. Raises CopyDamaged, CopyIncomplete."""
        return int(self.call("check_copy", {"folder": folder, "manifest_digest": digest}, on_progress=on_progress)["bytes"])

    def fetch(self, folder: str, digest: str | None, owner: str | None, *, on_progress: OnProgress = None) -> dict[str, Any]:
        """`is_there`, `bytes`, `fetched_bytes`. `owner`: as for `Repository.begin_point`. Raises CopyDamaged, CopyIncomplete."""
        arguments = {"folder": folder, "manifest_digest": digest, "owner": owner}
        return self.call("fetch_point", arguments, on_progress=on_progress)

    def remove(self, folder: str) -> dict[str, Any]:
        """`removed`: objects. `left`: older contents that the store keeps. Raises CopyLocked, before anything is removed."""
        return self.call("remove_copied", {"folder": folder})

    def points(self) -> dict[str, Any]:
        """`points`: what the manifests on the copy say. `unreadable`: folders and reasons."""
        return self.call("list_copy", {})

    def prove_lock(self, mode: LockMode) -> Proven:
        answer = self.call("prove_lock", {"mode": mode.value})
        return Proven(Immutability(answer["immutability"]), tuple(answer["answers"]), answer["why_not"])
