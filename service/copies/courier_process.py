"""The courier: a process that carries points between a repository and a copy. It is started and spoken to as the hand is.

It runs with the service's own Python, where boto3 is, and it opens no disk image. The key that it gets holds the credentials of the copy.
"""

from collections.abc import Mapping

from service.copies import attack, fetching, removing, sending
from service.repository.hand_process import main
from service.repository.steps import Step

STEPS: Mapping[str, Step] = sending.STEPS | fetching.STEPS | removing.STEPS | attack.STEPS

if __name__ == "__main__":
    main(STEPS)
