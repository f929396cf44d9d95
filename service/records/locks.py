"""The lock key of a job. The database refuses a second running job with the same key, on any host."""

from service.model.kinds import Locks, kind_of


def domain_key(domain_id: str) -> str:
    return f"{Locks.domain}:{domain_id}"


def copy_key(copy_id: str) -> str:
    return f"{Locks.copy}:{copy_id}"


def the_domain(domain_id: str | None) -> str:
    """The id of the domain, for work that needs a domain. Raises ValueError."""
    if domain_id is None:
        raise ValueError("the job is not about a domain")
    return domain_id


def point_in(lock_key: str | None) -> str | None:
    """The point that such a key locks; None: it locks no point."""
    locks, _, named = (lock_key or "").partition(":")
    return named if locks == Locks.point else None


def key_of(kind: str, *, domain_id: str | None, point_id: str | None, repository_id: str | None, copy_id: str | None = None) -> str | None:
    """None: jobs of this kind lock nothing. Raises ValueError if the job does not name the thing that it locks."""
    locks = kind_of(kind).locks
    if locks is Locks.nothing:
        return None
    if locks is Locks.points:
        locks = Locks.repository if repository_id is not None else Locks.domain
    named = {Locks.domain: domain_id, Locks.point: point_id, Locks.repository: repository_id, Locks.copy: copy_id}[locks]
    if named is None:
        raise ValueError(f"a job of kind {kind} locks a {locks}, but names no {locks}")
    return f"{locks}:{named}"
