"""What a command meets that asks the service over HTTP."""

from service.errors.base import StillpointError


class ServiceUnreachable(StillpointError):
    """Facts: `url`, `reason`."""

    code = "service_unreachable"
    title = "The service does not answer"
    detail_template = "{url}: {reason}."
    remedy_template = "Start it (`stillpoint all`), or say where it listens with --url or STILLPOINT_URL."


class TokenNotKnown(StillpointError):
    """Facts: `path`, `reason`."""

    code = "token_not_known"
    title = "There is no token to ask the service with"
    detail_template = "{path}: {reason}."
    remedy_template = "Give one with --token or STILLPOINT_TOKEN. `stillpoint token create` makes one."


class ServiceRefused(StillpointError):
    """The service answered with an error. Facts: `status`, `answer_code`, `says` and `hint`, as the service worded them."""

    code = "service_refused"
    title = "The service refused"
    detail_template = "{says} ({answer_code})"
    remedy_template = "{hint}"
