"""The lab for hand work: `python -m tests.lab up | status | down | build`."""

import argparse
import json
import sys
from pathlib import Path

from tests.lab import images
from tests.lab.daemon import Daemon, uri
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError, lab_dir

_HELP = """\
libvirt URI   {uri}
domain        {name}
serial log    {serial}
disks         {disks}

  virsh -c {uri} list --all
  virsh -c {uri} qemu-agent-command {name} '{{"execute": "guest-info"}}'
  virsh -c {uri} domfsinfo {name}
  virsh -c {uri} domfsfreeze {name}; sleep 1; virsh -c {uri} domfsthaw {name}; sleep 1
  grep STALL {serial}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a guest and leave it running")
    up.add_argument("--name", default="lab-linux")
    up.add_argument("--disks", type=int, default=1)
    up.add_argument("--agent", choices=["qga", "relay", "none"], default="qga")
    up.add_argument("--hook", choices=["ok", "fail", "fail_thaw", "swallow"])
    commands.add_parser("down", help="remove the guests, and the daemon if the lab started it")
    commands.add_parser("status", help="what is up")
    commands.add_parser("build", help="build the boot files only")
    arguments = parser.parse_args()
    try:
        return _COMMANDS[arguments.command](arguments)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> int:
    Daemon().ensure()
    options = GuestOptions(name=arguments.name, disks=arguments.disks, agent=arguments.agent, hook=arguments.hook)
    guest = LabGuest(options)
    if not (guest.is_defined() and guest.domain.isActive()):
        _remember({*_names(), arguments.name})
        guest.define().start_and_wait()
    _show(arguments.name)
    return 0


def _down(_arguments: argparse.Namespace) -> int:
    daemon = Daemon()
    daemon.ensure()
    for name in _names():
        LabGuest(GuestOptions(name=name)).destroy()
        print(f"removed {name}")
    _state().unlink(missing_ok=True)
    daemon.stop()
    return 0


def _status(_arguments: argparse.Namespace) -> int:
    for name in sorted(_names()):
        _show(name)
    if not _names():
        print("nothing is up")
    return 0


def _build(_arguments: argparse.Namespace) -> int:
    boot = images.build()
    print(f"{boot.kernel}\n{boot.initramfs}")
    return 0


def _show(name: str) -> None:
    guest = LabGuest(GuestOptions(name=name)).attach()
    disks = "\n              ".join(f"{target}  {source}" for target, source in guest.active_sources().items())
    print(_HELP.format(uri=uri(), name=name, serial=guest.console.path, disks=disks))


def _state() -> Path:
    return lab_dir() / "up.json"


def _names() -> set[str]:
    return set(json.loads(_state().read_text())) if _state().exists() else set()


def _remember(names: set[str]) -> None:
    _state().write_text(json.dumps(sorted(names)))


_COMMANDS = {"up": _up, "down": _down, "status": _status, "build": _build}

if __name__ == "__main__":
    sys.exit(main())
