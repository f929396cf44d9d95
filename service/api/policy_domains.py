"""The domains of a policy as the API answers them: those that it has, why, and those about which it is tied."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.fields import Filter
from service.db.engine import database_now
from service.errors import CursorInvalid
from service.model.selectors import Domain, Named, Selector, Tie, policy_of
from service.records import listed_domains, policies


def domains_by_name(session: Session) -> list[Domain]:
    return sorted(listed_domains.listed(session, database_now(session)).values(), key=_key)


def page_of_domains(session: Session, policy: str, wanted: Filter) -> dict[str, Any]:
    """By name. Raises PolicyUnknown, CursorInvalid."""
    name = policies.get(session, policy).name
    selectors = [Named(each.name, Selector.from_document(each.document["selector"])) for each in policies.list_all(session)]
    after = _key_in(wanted.cursor) if wanted.cursor is not None else ("", "")
    own = next(each.selector for each in selectors if each.name == name)
    domains = [domain for domain in domains_by_name(session) if _key(domain) > after and own.specificity(domain) is not None]
    items: list[dict[str, Any]] = []
    for domain, tie in _of(name, domains, selectors):
        if len(items) == wanted.limit:
            return {"items": items, "next_cursor": encode_cursor(items[-1]["name"], items[-1]["id"])}
        items.append({**shown(domain), "labels": dict(domain.labels), "why": why(own, domain), "tie": list(tie.policies) if tie else None})
    return {"items": items, "next_cursor": None}


def shown(domain: Domain) -> dict[str, Any]:
    return {"id": domain.id, "name": domain.name, "host": domain.host}


def why(selector: Selector, domain: Domain) -> dict[str, Any]:
    """What of the selector has selected the domain. Null: the selector does not ask for it."""
    return {
        "name": selector.pattern_for(domain.name),
        "labels": dict(selector.labels) or None,
        "host": domain.host if selector.hosts else None,
        "all_the_rest": selector.all_the_rest,
    }


def _of(name: str, domains: Sequence[Domain], selectors: Sequence[Named]) -> Iterator[tuple[Domain, Tie | None]]:
    for domain in domains:
        chosen = policy_of(domain, selectors)
        if isinstance(chosen, Tie):
            if name in chosen.policies:
                yield domain, chosen
        elif chosen is not None and chosen.policy == name:
            yield domain, None


def _key(domain: Domain) -> tuple[str, str]:
    return domain.name, domain.id


def _key_in(cursor: str) -> tuple[str, str]:
    key = decode_cursor(cursor)
    if len(key) != 2:
        raise CursorInvalid(cursor=cursor)
    return key[0], key[1]
