"""`python -m demo [--json FILE]`: exit code 0 only if everything that the story claims was seen to be true."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import libvirt

from demo import backups, stage
from demo.backups import tell_backups
from demo.commands import Commands
from demo.curl import Refused
from demo.policies import tell_policies
from demo.screen import Colour, Screen
from demo.story import Ending, sign_in, tell
from demo.windows import HEALTHY, tell_windows
from tests.lab.places import LabError

INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody wants this to end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The main job on a real guest, told step by step.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the final job document of the Linux guest to FILE")
    document: Path | None = parser.parse_args().json
    screen = Screen()
    started = time.monotonic()
    try:
        ending = _play(screen)
    except Stopped:
        screen.line("\nStopped; what was started has been removed.")
        return INTERRUPTED
    except (Refused, LabError, libvirt.libvirtError, AssertionError) as error:  # AssertionError: the service did not start
        screen.line(f"\n{screen.paint('The demo could not go on:', Colour.red)} {error}")
        return 1
    if document is not None:
        document.write_text(json.dumps(ending.job, indent=2, ensure_ascii=False) + "\n")
        screen.line(f"\nThe job is in {document}.")
    return _conclude(screen, ending, time.monotonic() - started)


def _play(screen: Screen) -> Ending:
    screen.title("Stillpoint: a real guest is frozen, thawed, backed up, lost and restored, and protected by a policy")
    with _stoppable() as patience, ExitStack() as stack:
        stack.enter_context(stage.libvirt(screen))
        guest = stack.enter_context(stage.linux_guest(screen))
        service = stack.enter_context(stage.service(screen))
        curl = sign_in(screen, service)
        linux = tell(screen, curl, guest)
        windows = tell_windows(screen, curl, stack.enter_context(stage.windows_guest(screen, HEALTHY)))
        path = stack.enter_context(backups.repository())
        commands = Commands(screen, service)
        backed_up = tell_backups(screen, curl, commands, guest, path)
        by_policy = tell_policies(screen, curl, commands, service, guest, folder=path.parent)
        ending = Ending(linux.job, [*linux.checks, *windows, *backed_up, *by_policy])
        patience.finish_undisturbed()
        return ending


def _conclude(screen: Screen, ending: Ending, seconds: float) -> int:
    screen.line()
    if ending.is_good:
        screen.line(
            screen.paint(f"All of it is true. The guests and the service are stopped and removed; this took {seconds:.0f} s.", Colour.green)
        )
        return 0
    failed = ", ".join(check.claim for check in ending.checks if not check.holds)
    screen.line(screen.paint(f"NOT true: {failed}.", Colour.red))
    return 1


class Patience:
    """Ends the story at the first signal. From then on, and from its own end on, signals wait: no guest is left behind."""

    def __init__(self) -> None:
        self._is_finishing = False

    def finish_undisturbed(self) -> None:
        self._is_finishing = True

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_finishing:
            self._is_finishing = True
            raise Stopped


@contextmanager
def _stoppable() -> Iterator[Patience]:
    """Ctrl-C, a kill and a closed terminal end the story where it is; everything is still taken down in order."""
    patience = Patience()
    before = {number: signal.signal(number, patience.stop) for number in STOPS}
    try:
        yield patience
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
