"""Why a point stays or goes, in words. Programs compare the codes."""

from collections.abc import Mapping
from typing import Any

from service.model.retention import Goes, Ground, Stays
from service.model.retention_rules import Rule

_RULES = frozenset(Rule)
_SENTENCES: Mapping[Stays | Goes, str] = {
    Stays.no_rule: "its track has no rule of retention",
    Stays.pinned: "it is pinned",
    Stays.in_future: "its point in time lies in the future",
    Stays.young: "it is younger than minimum_age_s, which is {minimum_age_s}",
    Stays.newest_good: "it is the newest good point of its track",
    Stays.newest_with_verdict: "it is the newest good point of its track with the verdict {verdict} or a better one",
    Stays.not_replaced: "it is not whole, and a newer whole point does not exist",
    Stays.needed_by: "{points} need it",
    Stays.in_use: "it is in use by jobs ({jobs}) or domains ({domains})",
    Stays.not_of_policy: "a person asked for it, and not a policy",
    Stays.policy_gone: "the policy {policy} does not exist any more, or has another name",
    Stays.policy_unreadable: "this version cannot read the policy {policy}",
    Stays.track_gone: "the policy {policy} does not have the track {track} any more",
    Stays.policy_paused: "the policy {policy} is paused",
    Stays.repository_away: "its repository {repository} is {state}",
    Stays.not_in_repository: "it lies beside the disks of its domain, and not in a repository",
    Goes.damaged: "it is damaged or missing, and a newer good point exists",
    Goes.needs_damaged: "a point that it needs is damaged or missing, and a newer good point exists",
    Goes.replaced: "a newer point of {period} stays, by keep_{rule}",
    Goes.too_old: "the rules have kept as many points as they ask for, and it is older",
    Goes.merged: "only {points} need it, and what they need of it is merged into them",
    Goes.leaving: "a job has given it up, and removes its files",
}


def sentence(ground: Ground) -> str:
    code, facts = ground.code, ground.facts
    if code.value in _RULES:
        period = f", for {facts['period']}" if "period" in facts else ""
        return f"it is number {facts['number']} of the {facts['wanted']} that keep_{code.value} keeps{period}"
    if code is Goes.replaced and facts["rule"] == Rule.last:
        return f"the newer point {facts['by']} stays, by keep_last"
    # Only these name several things. A preview may have tens of thousands of sentences.
    if code in (Stays.needed_by, Stays.in_use, Goes.merged):
        facts = {name: _in_text(value) for name, value in facts.items()}
    return _SENTENCES[code].format_map(facts)


def _in_text(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list | tuple) else str(value)
