"""Windows releases as guest-get-osinfo describes them."""

from dataclasses import dataclass
from typing import Literal

SystemName = Literal["2008", "2008r2", "7", "2012r2", "10", "11", "2016", "2019", "2022", "2025"]


@dataclass(frozen=True)
class System:
    kernel_version: tuple[int, int]
    build: int
    variant: Literal["server", "client"]
    pretty_name: str
    version: str
    version_id: str
    #: The agent's table of names got this row in that QEMU release; older agents say the row before it.
    named_since: tuple[int, int] = (2, 10)
    named_before: tuple[str, str] = ("", "")

    @property
    def is_server(self) -> bool:
        return self.variant == "server"

    @property
    def copyright_years(self) -> str:
        return "2001-2005" if self.kernel_version <= (6, 1) else "2001-2013"


SYSTEMS: dict[SystemName, System] = {
    "2008": System((6, 0), 6003, "server", "Windows Server (R) 2008 Standard", "Microsoft Windows Server 2008", "2008"),
    "2008r2": System((6, 1), 7601, "server", "Windows Server 2008 R2 Standard", "Microsoft Windows Server 2008 R2", "2008r2"),
    # A comma is missing in the agent's table: the name swallows the id.
    "7": System((6, 1), 7601, "client", "Windows 7 Professional", "Microsoft Windows 77", ""),
    "2012r2": System((6, 3), 9600, "server", "Windows Server 2012 R2 Standard", "Microsoft Windows Server 2012 R2", "2012r2"),
    "10": System((10, 0), 19045, "client", "Windows 10 Pro", "Microsoft Windows 10", "10"),
    # The registry's ProductName, and so pretty-name, still says 10.
    "11": System((10, 0), 22631, "client", "Windows 10 Pro", "Microsoft Windows 11", "11", (7, 0), ("Microsoft Windows 10", "10")),
    "2016": System((10, 0), 14393, "server", "Windows Server 2016 Standard", "Microsoft Windows Server 2016", "2016"),
    "2019": System((10, 0), 17763, "server", "Windows Server 2019 Standard", "Microsoft Windows Server 2019", "2019"),
    "2022": System(
        (10, 0),
        20348,
        "server",
        "Windows Server 2022 Standard",
        "Microsoft Windows Server 2022",
        "2022",
        (6, 1),
        ("Microsoft Windows Server 2019", "2019"),
    ),
    # Not in the table of any agent that was read: the last row that fits is reported.
    "2025": System(
        (10, 0),
        26100,
        "server",
        "Windows Server 2025 Standard",
        "Microsoft Windows Server 2022",
        "2022",
        (6, 1),
        ("Microsoft Windows Server 2019", "2019"),
    ),
}


def osinfo(system: System, generation: tuple[int, int]) -> dict[str, str]:
    version, version_id = (system.version, system.version_id) if generation >= system.named_since else system.named_before
    document = {
        "name": "Microsoft Windows",
        "kernel-release": str(system.build),
        "version": version,
        "variant": system.variant,
        "pretty-name": system.pretty_name,
        "version-id": version_id,
        "variant-id": system.variant,
        "kernel-version": "{}.{}".format(*system.kernel_version),
        "machine": "x86_64",
        "id": "mswindows",
    }
    return {key: value for key, value in document.items() if value}
