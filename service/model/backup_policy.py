"""A policy: which domains are protected, by which tracks, and what is promised for them. A document that a person writes.

`from_document` tells all faults of a document at once. `as_document` is the canonical form: every field, with its default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from service.errors import FieldRepeated, PolicyInvalid
from service.model import blackouts
from service.model.blackouts import Blackout
from service.model.document_fields import Faults, Fields, shown
from service.model.protection_facts import Promise, PromisedProof
from service.model.repository import ProofKind
from service.model.request_limits import DEMANDABLE, MAX_TRANSFERS
from service.model.selectors import FIELDS as FIELDS_OF_SELECTOR
from service.model.selectors import Selector
from service.model.track import FIELDS as FIELDS_OF_TRACK
from service.model.track import MAX_POLICY_NAME, NAME, Track
from service.model.verdict import Verdict

FIELDS = ("name", "description", "paused", "selector", "tracks", "blackouts", "limits", "promise")
MAX_DESCRIPTION = 1_000
"""Characters. A longer description is refused."""
MAX_TRACKS = 16
"""Tracks of a policy. A policy with more is refused."""
MAX_BLACKOUTS = 64
"""Blackouts of a policy. A policy with more is refused."""
MIN_PROMISED_S = 60
"""Seconds. A promise of less is refused: no schedule could keep it."""
MAX_PROMISED_S = 100 * 366 * 86_400
"""Seconds, a hundred years. A promise of more is refused, as it is a mistake."""
_OF_LIMITS = ("guests_in_window_per_host", "transfers_per_repository")
_OF_PROMISE = ("rpo_s", "verdict", "proof")
_OF_PROOF = ("kind", "max_age_s")
PROMISED_PROOFS = tuple(kind.value for kind in ProofKind if kind is not ProofKind.signature)
"""A signature says who sealed a point, and nothing of whether the point can be restored."""


@dataclass(frozen=True)
class Limits:
    """Each None: no limit."""

    guests_in_window_per_host: int | None = None
    transfers_per_repository: int | None = None

    @classmethod
    def read(cls, fields: Fields | None) -> "Limits":
        return cls() if fields is None else cls(*(fields.whole_or_null(name, 1, MAX_TRANSFERS) for name in _OF_LIMITS))


@dataclass(frozen=True)
class BackupPolicy:
    name: str
    selector: Selector
    tracks: tuple[Track, ...]
    description: str = ""
    paused: bool = False
    blackouts: tuple[Blackout, ...] = ()
    limits: Limits = Limits()
    promise: Promise = field(default_factory=Promise)

    @classmethod
    def from_document(cls, document: Any) -> "BackupPolicy":
        """Raises PolicyInvalid, with everything that is wrong."""
        faults = Faults()
        policy = cls._read(Fields(document, "", FIELDS, faults))
        if faults.all:
            name = document.get("name") if isinstance(document, Mapping) else None
            raise PolicyInvalid(shown(name) if name is not None else "the policy", faults.all)
        return policy

    @classmethod
    def _read(cls, fields: Fields) -> "BackupPolicy":
        selector = fields.object("selector", FIELDS_OF_SELECTOR, is_needed=True)
        return cls(
            name=fields.text("name", "letters, digits and - _ .", pattern=NAME, longest=MAX_POLICY_NAME),
            selector=Selector.read(selector) if selector is not None else Selector(),
            tracks=_tracks(fields),
            description=fields.text("description", "a text", longest=MAX_DESCRIPTION, shortest=0, default=""),
            paused=fields.flag("paused", default=False),
            blackouts=_blackouts(fields),
            limits=Limits.read(fields.object("limits", _OF_LIMITS)),
            promise=_promise(fields.object("promise", _OF_PROMISE)),
        )

    def as_document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "paused": self.paused,
            "selector": self.selector.as_document(),
            "tracks": [track.as_document() for track in self.tracks],
            "blackouts": [blackout.as_document() for blackout in self.blackouts],
            "limits": asdict(self.limits),
            "promise": self.promise.as_document(),
        }

    def track(self, name: str) -> Track | None:
        return next((track for track in self.tracks if track.name == name), None)


def _tracks(fields: Fields) -> tuple[Track, ...]:
    tracks: list[Track] = []
    for each in fields.objects("tracks", FIELDS_OF_TRACK, MAX_TRACKS, least=1, is_needed=True):
        track = Track.read(each)
        name = each.value("name")
        if name is not None and any(name == other.name for other in tracks):
            fields.faults.add(FieldRepeated(path=each.at("name"), value=shown(name)))
        tracks += [track] if track is not None else []
    return tuple(tracks)


def _blackouts(fields: Fields) -> tuple[Blackout, ...]:
    read = [Blackout.read(each) for each in fields.objects("blackouts", blackouts.FIELDS, MAX_BLACKOUTS)]
    # A window that was not understood covers perhaps too much: one fault is enough.
    if any(fault.facts["path"].startswith("blackouts") for fault in fields.faults.all):
        return tuple(read)
    return blackouts.read_all(read, "blackouts", fields.faults)


def _promise(fields: Fields | None) -> Promise:
    if fields is None:
        return Promise()
    proof = fields.object("proof", _OF_PROOF)
    return Promise(
        rpo_s=fields.whole_or_null("rpo_s", MIN_PROMISED_S, MAX_PROMISED_S),
        verdict=fields.choice_or_null("verdict", Verdict, only=DEMANDABLE),
        proof=_proof(proof) if proof is not None else None,
    )


def _proof(fields: Fields) -> PromisedProof:
    kind = fields.choice_or_null("kind", ProofKind, only=PROMISED_PROOFS, is_needed=True)
    max_age_s = fields.whole_or_null("max_age_s", MIN_PROMISED_S, MAX_PROMISED_S, is_needed=True)
    return PromisedProof(kind or ProofKind.bytes, max_age_s or MIN_PROMISED_S)
