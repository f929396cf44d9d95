"""Jobs as tests ask for them."""

from service.records.queue import NewJob


def a_snapshot(
    domain: str = "db1",
    host: str = "hv1",
    *,
    kind: str = "snapshot",
    labels: dict[str, str] | None = None,
    pause_s: float = 0.0,
    token: str | None = None,
    key: str | None = None,
    digest: str | None = None,
) -> NewJob:
    return NewJob(
        kind=kind,
        domain_id=f"id-of-{domain}",
        domain_name=domain,
        host_id=host,
        request={"kind": kind, "domain": domain},
        labels=labels or {},
        pause_s=pause_s,
        token_id=token,
        idempotency_key=key,
        idempotency_digest=digest,
    )


def a_thaw(domain: str = "db1", host: str = "hv1") -> NewJob:
    return a_snapshot(domain, host, kind="thaw")
