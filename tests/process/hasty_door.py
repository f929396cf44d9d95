"""Stillpoint whose door waits shorter than usual for a request: python -m tests.process.hasty_door COMMAND."""

from service import cli
from service.api import door

HEAD_S = 1.0
BODY_S = 2.0

if __name__ == "__main__":
    door.HEAD_SECONDS, door.BODY_SECONDS = HEAD_S, BODY_S
    cli.main()
