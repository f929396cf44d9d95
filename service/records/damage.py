"""What was found wrong in a repository, put on every point that it spoils. Verify, restore and import all come here. Callers commit."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.tables import RecoveryPoint
from service.errors import StillpointError
from service.model import chains
from service.model.chains import Link
from service.model.lifecycle import PointState
from service.model.proofs import DAMAGED_BELOW, Proof, is_known_bad, newest, what_is_bad, without_blame
from service.model.repository import ProofKind
from service.records import points


def place_of(fault: Mapping[str, Any]) -> str:
    """Where a fault is. `file`: relative to the folder of a point, or a whole path; None: the folder itself is not there."""
    file = str(fault["file"] or "")
    return file if file.startswith("/") else f"{fault['folder']}/{file}"


def place_in(error: StillpointError) -> str:
    """The place that an error of the repository names."""
    return str(error.facts.get("missing") or error.facts.get("path") or "")


def put_on_record(
    session: Session, read: RecoveryPoint, places: Iterable[str], proof: Proof | None, *, now: datetime, facts: Mapping[str, Any]
) -> list[str]:
    """The points in whose folders the places are, and all points that need one of them, are damaged. Returns their ids.

    `read`: the point that was read when this was found. That point is damaged in every case. `proof` goes to each of the points, and says
    of the others which of them are to blame. `facts` stand in the events.
    """
    links = {link.id: link for link in points.links_of_domain(session, read.domain_id)}
    known = [point for point in points.of_repository(session, str(read.repository_id)) if point.domain_id == read.domain_id]
    chain = chains.ancestors(read.id, links) | {read.id}
    to_blame = _holding(places, [point for point in known if point.id in chain]) or {read.id}
    damaged = [point.id for point in known if point.id == read.id or to_blame & ({point.id} | chains.ancestors(point.id, links))]
    # What takes back damage of the same points waits, or is over: their states are read after that.
    points.lock(session, damaged)
    for point in [points.get(session, each) for each in damaged]:
        part: dict[str, Any] = {}
        if point.id != read.id:
            part = {"found_in_chain_of": read.id}
        if point.id not in to_blame:
            part[DAMAGED_BELOW] = sorted(to_blame)
        if proof is not None:
            points.add_proofs(session, point.id, [replace(proof, facts={**proof.facts, **part})], now)
        if point.state == PointState.sealed:
            points.set_state(session, point.id, PointState.damaged, now=now, facts={**facts, **part})
    return damaged


def _holding(places: Iterable[str], known: Iterable[RecoveryPoint]) -> set[str]:
    """The points whose folder, or whose id, one of the places names."""
    parts = {piece for place in places for piece in PurePath(place).parts}
    return {point.id for point in known if point.id in parts or (point.folder and PurePath(point.folder).name in parts)}


def take_back(
    session: Session, read: RecoveryPoint, proof: Proof, *, begun: datetime, now: datetime, facts: Mapping[str, Any]
) -> list[str]:
    """What `proof` tested is good, where it may have been damaged before. Returns what is sealed again: never a point of which another
    proof still says that it is damaged. `begun`: when the read began. Damage that was found since is not refuted by it.

    A proof of bytes says that every stored byte of the chain is as it was sealed. That refutes what an earlier read of a chain said of the
    points below. A fault that was found when such a point itself was read stays, as what its guest saw was not compared now.
    Points above are good again if only points below them were to blame, and all of those are good again.
    """
    links = {link.id: link for link in points.links_of_domain(session, read.domain_id)}
    chain = chains.ancestors(read.id, links) & links.keys()
    points.lock(session, {read.id, *chain, *_standing_on({read.id, *chain}, links)})
    if _is_bad_since(points.get(session, read.id), proof.kind, since=begun):
        overtaken = replace(proof, ok=None, facts={**proof.facts, "damage_found_meanwhile": True})
        points.add_proofs(session, read.id, [overtaken], now)
        return []
    points.add_proofs(session, read.id, [proof], now)
    whole = [read.id]
    if proof.kind is ProofKind.bytes:
        whole += _refuted(session, chain, read, proof, begun=begun, now=now)
    return _sealed_again(session, read, proof.kind, whole, now=now, facts=facts)


def take_back_below(
    session: Session, read: RecoveryPoint, places: Iterable[str], proof: Proof, *, begun: datetime, now: datetime, facts: Mapping[str, Any]
) -> list[str]:
    """After a read of the bytes of the whole chain that found `places` to be bad, and nothing else: the points below that need none of
    them are good, as `take_back` says it. `proof`: the bad one of the point that was read. Returns what is sealed again.
    """
    links = {link.id: link for link in points.links_of_domain(session, read.domain_id)}
    chain = chains.ancestors(read.id, links) & links.keys()
    rows = [points.get(session, each) for each in sorted(chain | {read.id})]
    bad_in = [_holding([place], rows) for place in places]
    if not all(bad_in):
        # A place that belongs to no point of the chain: it is not known which of them it spoils.
        return []
    to_blame = set().union(*bad_in)
    good = {each for each in chain if not to_blame & ({each} | chains.ancestors(each, links))}
    points.lock(session, {*good, *_standing_on(good, links)})
    whole = _refuted(session, good, read, replace(proof, ok=True), begun=begun, now=now)
    return _sealed_again(session, read, proof.kind, whole, now=now, facts=facts)


def _refuted(session: Session, chain: Iterable[str], read: RecoveryPoint, proof: Proof, *, begun: datetime, now: datetime) -> list[str]:
    """The points of which an earlier read of a chain said that they are bad, and which were read as good now. They get a proof of it."""
    refuted = []
    for point in (points.get(session, each) for each in sorted(chain)):
        last = newest(point.proofs, ProofKind.bytes)
        is_of_a_chain = last is not None and last["ok"] is False and "found_in_chain_of" in last["facts"]
        if is_of_a_chain and not _is_bad_since(point, ProofKind.bytes, since=begun):
            healed = {"healed": proof.facts["healed"]} if "healed" in proof.facts else {}
            points.add_proofs(session, point.id, [replace(proof, facts={"found_in_chain_of": read.id, **healed})], now)
            refuted.append(point.id)
    return refuted


def _sealed_again(
    session: Session, read: RecoveryPoint, kind: ProofKind, whole: Sequence[str], *, now: datetime, facts: Mapping[str, Any]
) -> list[str]:
    again = [each for each in whole if _is_sealed_again(session, each, now=now, facts=facts)]
    return again + _sealed_above(session, read, kind, whole, now=now, facts=facts)


def _sealed_above(
    session: Session, read: RecoveryPoint, kind: ProofKind, whole: Collection[str], *, now: datetime, facts: Mapping[str, Any]
) -> list[str]:
    """Parents first, because a point is not sealed again on one that is not good. Their own files were not read, so they get no proof."""
    links = {link.id: link for link in points.links_of_domain(session, read.domain_id)}
    below = {each: ancestors for each in links if (ancestors := chains.ancestors(each, links)) & set(whole)}
    involved = {*below, *whole, *(each for ancestors in below.values() for each in ancestors & links.keys())}
    not_to_blame = {each for each in involved if kind not in what_is_bad(points.get(session, each).proofs)}
    good = {link.id for link in links.values() if link.is_good}
    because = {"whole_again": sorted(whole)}
    why = {**because, "taken_back_at": rfc3339(now)}
    again = []
    for point_id in sorted(below, key=lambda each: (len(below[each]), each)):
        if points.get(session, point_id).state != PointState.damaged:
            continue
        points.change_proofs(session, point_id, lambda proof: without_blame(proof, kind, not_to_blame, why))
        if below[point_id] <= good and _is_sealed_again(session, point_id, now=now, facts={**facts, **because}):
            good.add(point_id)
            again.append(point_id)
    return again


def _standing_on(point_ids: Collection[str], links: Mapping[str, Link]) -> set[str]:
    return {each for each in links if chains.ancestors(each, links) & set(point_ids)}


def _is_bad_since(point: RecoveryPoint, kind: ProofKind, *, since: datetime) -> bool:
    return any(
        proof["kind"] == kind and proof["ok"] is False and datetime.fromisoformat(proof["at"]) >= since for proof in point.proofs or ()
    )


def _is_sealed_again(session: Session, point_id: str, *, now: datetime, facts: Mapping[str, Any]) -> bool:
    point = points.get(session, point_id)
    is_bad = is_known_bad(point.proofs) or point.state == PointState.leaving
    return not is_bad and points.set_state(session, point_id, PointState.sealed, now=now, facts=dict(facts))
