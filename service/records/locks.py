"""What a job has for itself alone, as one text: the database refuses a second running job with the same key, on whatever host."""

from service.model.kinds import Locks, kind_of


def domain_key(domain_id: str) -> str:
    return f"{Locks.domain}:{domain_id}"


def the_domain(domain_id: str | None) -> str:
    """For work that cannot be done without one. Raises ValueError."""
    if domain_id is None:
        raise ValueError("the job is not about a domain")
    return domain_id


def key_of(kind: str, *, domain_id: str | None, point_id: str | None, repository_id: str | None) -> str | None:
    """None: jobs of this kind lock nothing. Raises ValueError where the job does not name what it locks."""
    locks = kind_of(kind).locks
    if locks is Locks.nothing:
        return None
    named = {Locks.domain: domain_id, Locks.point: point_id, Locks.repository: repository_id}[locks]
    if named is None:
        raise ValueError(f"a job of kind {kind} locks a {locks}, and names none")
    return f"{locks}:{named}"
