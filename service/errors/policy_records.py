"""Policies as they are on record."""

from service.errors.base import StillpointError


class PolicyUnknown(StillpointError):
    code = "policy_not_found"
    title = "There is no such policy"
    detail_template = "No policy has the id or the name {policy}."
    remedy_template = "List the policies with GET /api/v1/policies or `stillpoint policy list`."


class PolicyTaken(StillpointError):
    code = "policy_taken"
    title = "A policy with this name exists already"
    detail_template = "{policy} is the name of the policy {policy_id}."
    remedy_template = "Change that policy with PUT /api/v1/policies/{policy}, or choose another name."


class PolicyChanged(StillpointError):
    """Facts: `policy`, `revision` that the caller had read, and `now` that is on record."""

    code = "policy_changed"
    title = "The policy was changed meanwhile"
    detail_template = "{policy} is at revision {now}, and the request was made for revision {revision}."
    remedy_template = "Read the policy again, and decide whether the change is still wanted."
