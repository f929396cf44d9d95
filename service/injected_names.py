"""Names that Kubernetes and Docker put into the environment of a container. They look like settings where a service has our name.

A Service named `stillpoint` (or `stillpoint-api`) gives each pod of its namespace STILLPOINT_SERVICE_HOST, STILLPOINT_PORT=tcp://… and
more. `docker run --link` does the same. No user chose these names, so they are not misspelt settings. The name and the value must both
have the known form.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping

_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\d{1,5})")
_CONTAINERS = re.compile(r"/[^/\s]+/[^/\s]+")


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) <= 65_535


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_address(value: str) -> bool:
    """`tcp://10.96.0.12:80`, `tcp://[fd00::1]:80`."""
    match = _ADDRESS.fullmatch(value)
    return match is not None and _is_ip(match["v6"] or match["v4"]) and _is_port(match["port"])


_PORT = r"[A-Z0-9_]+_PORT_\d{1,5}_(?:TCP|UDP|SCTP)"
_FORMS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (re.compile(r"[A-Z0-9_]+_SERVICE_HOST"), _is_ip),
    (re.compile(r"[A-Z0-9_]+_SERVICE_PORT(?:_[A-Z0-9_]+)?"), _is_port),
    (re.compile(r"[A-Z0-9_]+_PORT"), _is_address),
    # START and END: of a range of ports of Docker's.
    (re.compile(rf"{_PORT}(?:_START|_END)?"), _is_address),
    (re.compile(rf"{_PORT}_PROTO"), lambda value: value in ("tcp", "udp", "sctp")),
    (re.compile(rf"{_PORT}_PORT(?:_START|_END)?"), _is_port),
    (re.compile(rf"{_PORT}_ADDR"), _is_ip),
)


def without_them(environment: Mapping[str, str]) -> dict[str, str]:
    """The names that a person has set. A name in lower case never comes from Docker or Kubernetes."""
    links = tuple(f"{alias}_ENV_" for alias in _links(environment))
    return {
        name: value
        for name, value in environment.items()
        if not (_is_injected(name, value) or _is_name_of_a_link(name, value) or name.startswith(links))
    }


def _is_injected(name: str, value: str) -> bool:
    return any(form.fullmatch(name) and has_form(value) for form, has_form in _FORMS)


def _links(environment: Mapping[str, str]) -> list[str]:
    """The names of Docker's links. For each link Docker also copies the environment of the other container."""
    return [name.removesuffix("_NAME") for name, value in environment.items() if _is_name_of_a_link(name, value)]


def _is_name_of_a_link(name: str, value: str) -> bool:
    """`STILLPOINT_NAME=/web/stillpoint`: this container, and what the other one is called in it."""
    alias = name.removesuffix("_NAME")
    return alias != name and re.fullmatch(r"[A-Z0-9_]+", alias) is not None and _CONTAINERS.fullmatch(value) is not None
