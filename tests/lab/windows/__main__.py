"""The agent of a running relay guest, until that ends: `python -m tests.lab.windows --guest lab-windows --scenario sql-writer-failed`."""

import argparse
import sys
from pathlib import Path

from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError
from tests.lab.windows.agent import WindowsAgent
from tests.lab.windows.guest import guest_disks
from tests.lab.windows.relay import RelayAgent
from tests.lab.windows.scenario import Scenario, load, scenario_names
from tests.lab.windows.storage import invented_disks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.windows", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="the unix socket of the relay port; the disks are invented")
    where.add_argument("--guest", help="the lab guest of this name, started with agent=relay; the disks are its own")
    where.add_argument("--list", action="store_true", help="the scenarios that there are")
    parser.add_argument("--scenario", default="healthy-2022", help="a name from the list, or a file")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:28} {load(name).title}" for name in scenario_names()))
        return 0
    try:
        return _serve(arguments, _scenario(arguments.scenario))
    except KeyboardInterrupt:
        return 0
    except (LabError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _serve(arguments: argparse.Namespace, scenario: Scenario) -> int:
    if arguments.guest:
        guest = LabGuest(GuestOptions(name=arguments.guest, agent="relay"))
        path, disks = guest.relay_socket, guest_disks(guest)
    else:
        path, disks = arguments.socket, invented_disks(1)
    agent = WindowsAgent(scenario, disks=disks)
    relay = RelayAgent(agent, path)
    print(f"agent {agent.version.text} answers on {path}", flush=True)
    relay.serve()
    return 0


def _scenario(name: str) -> Scenario:
    path = Path(name)
    return load(path if path.suffix else name)


if __name__ == "__main__":
    sys.exit(main())
