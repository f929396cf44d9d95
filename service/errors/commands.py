"""What a command meets that asks the service over HTTP."""

from collections.abc import Sequence

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


class PolicyFileUnreadable(StillpointError):
    """Facts: `file`, with the line where that is known, and `reason`."""

    code = "policy_file_unreadable"
    title = "The file of policies cannot be read"
    detail_template = "{file}: {reason}."
    remedy_template = "Correct the file. Write texts that begin with * or @, or that have a colon, in quotation marks."


class NoPolicyInFiles(StillpointError):
    code = "no_policy_in_files"
    title = "There is not a single policy in the files"
    detail_template = "{files}: all documents are empty, or there are none."
    remedy_template = "Name a file with a policy, or a folder with files that end with .yaml."


class PolicyFilesInvalid(StillpointError):
    """`faults`: each with the file and the line of the field. Nothing was sent to the service."""

    code = "policy_files_invalid"
    title = "The policies are not valid"
    detail_template = "{count} fault(s). Nothing was written.\n{lines}"
    remedy_template = "Correct them, and try again."

    def __init__(self, faults: Sequence[tuple[str, StillpointError]]) -> None:
        lines = [f"{where}: {fault.detail} {fault.remedy}" for where, fault in faults]
        super().__init__(count=len(lines), lines="\n".join(lines))
