"""Whether the manifests of a point and of those below are still signed. What was signed once must stay signed.

Who may write in the repository can remove a signature. The bytes are good then, and nothing says who has made the point. So this is a proof
of its own: the point is restored only with `accept_unsigned`, as one that was imported without a signature.
"""

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.errors import ForeignEntry, PointDamaged, PointUnsigned, RecordUnreadable, StillpointError, VersionUnknown
from service.jobs.run import JobRun
from service.model import chains
from service.model.proofs import Proof, what_is_bad
from service.model.repository import SIGNATURE_FILE, ProofKind
from service.records import damage, points
from service.repository import manifests, signing
from service.repository.signing import SignatureState
from service.repository.store import Repository

ANOTHER_KEY = "another_key"
"""The state of a signature that is right, by another key than the one that the manifest names."""
UNSIGNED = "unsigned"
"""The state of a manifest that names no key, and has no signature."""


def check(run: JobRun, open_repository: Callable[[], Repository], point_id: str) -> StillpointError | None:
    """Puts what was found on record. Returns why the point is not good. Raises the errors of a repository that cannot be read.

    `open_repository`: without its key, which may not be there. Signatures need none.
    """
    folders = run.in_transaction(lambda session: _folders_of_chain(session, point_id))
    begun = run.in_transaction(database_now)
    with open_repository() as repository:
        states, lost = _read(repository, folders)
    is_signed = all(state == SignatureState.good for state in states.values())

    def note(session: Session) -> str | None:
        point, now = points.get(session, point_id), database_now(session)
        facts = {"by": ProofKind.signature.value, "job_id": run.claim.job_id}
        if lost:
            proof = Proof(ProofKind.signature, False, {"state": states[lost[0]], "folders": lost}, run.claim.job_id)
            damage.put_on_record(session, point, [f"{folder}/{SIGNATURE_FILE}" for folder in lost], proof, now=now, facts=facts)
        elif is_signed and ProofKind.signature in what_is_bad(point.proofs):
            proof = Proof(ProofKind.signature, True, {"state": SignatureState.good.value}, run.claim.job_id)
            damage.take_back(session, point, proof, begun=begun, now=now, facts=facts)
        return points.next_good(session, point) if lost else None

    next_good = run.in_transaction(note)
    return PointUnsigned(point=point_id, folder=lost[0], next_good=next_good) if lost else None


def _read(repository: Repository, folders: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """The states, and the folders whose signature is lost. What seems lost is read twice: the whole repository may have been away."""
    before, states = repository.look(), _states(repository, folders)
    lost = [folder for folder, state in states.items() if state in (SignatureState.missing, ANOTHER_KEY)]
    if lost:
        again = _states(repository, lost)
        repository.must_have_stayed(before)
        lost = [folder for folder in lost if again.get(folder) == states[folder]]
    return states, lost


def _folders_of_chain(session: Session, point_id: str) -> list[str]:
    """The folder of the point first."""
    point = points.get(session, point_id)
    links = {link.id: link for link in points.links_of_domain(session, point.domain_id)}
    below = chains.ancestors(point_id, links)
    rows = [point, *(row for row in points.of_repository(session, str(point.repository_id)) if row.id in below)]
    return [row.folder for row in rows if row.folder is not None]


def _states(repository: Repository, folders: Sequence[str]) -> Mapping[str, str]:
    """By folder: `good` if the key that the manifest names has signed. `unsigned` if the manifest names none, and nothing has signed.

    A manifest that cannot be read, or whose signature does not fit, is left out: the check of the bytes tells it.
    """
    states: dict[str, str] = {}
    for folder in folders:
        try:
            read = repository.call("read_point", {"folder": folder})
            named = manifests.parsed(read["manifest"]).key_id
        except (PointDamaged, ForeignEntry, RecordUnreadable, VersionUnknown):
            continue
        state = signing.check(read["manifest"].encode(), read["signature"], {})
        if state is SignatureState.missing:
            states[folder] = SignatureState.missing.value if named is not None else UNSIGNED
        elif state is not SignatureState.wrong:
            is_named = named in (None, signing.signer(read["signature"]))
            states[folder] = SignatureState.good.value if is_named else ANOTHER_KEY
    return states
