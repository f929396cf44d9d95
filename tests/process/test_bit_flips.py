"""Some rounds of `python -m tests.repository.bit_flips`: every flip is found, what is healed is as it was, the rest is damaged."""

import random
from pathlib import Path

from tests.repository.bit_flips import Result, scene

ROUNDS = 24


def test_flipped_bits_are_found_and_nothing_is_called_good_that_is_not(tmp_path: Path) -> None:
    result, dice = Result(), random.Random(11)
    with scene(tmp_path) as flips:
        for _ in range(ROUNDS):
            flips.play(dice, result)
    assert result.breaches == []
    assert result.found == result.rounds == ROUNDS
    assert result.healed > 0
    assert result.damaged > 0
