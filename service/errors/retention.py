"""Rules of retention that cannot be understood."""

from service.errors.base import StillpointError


class RetentionInvalid(StillpointError):
    code = "retention_invalid"
    title = "A rule of retention is not valid"
    detail_template = "The rule {field} is {value!r}. Allowed: {allowed}."
    remedy_template = "Correct {field}, and send the rules again. Without any rule all points stay."
