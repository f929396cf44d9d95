"""The agent lies: one of its answers is late, lost, unreadable, said twice or broken off, and after a while it is started anew."""

from collections.abc import Callable

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.lying_agent import Lie
from tests.chaos.stage import Stage, until

COMMANDS = {"guest-fsfreeze-freeze": 5.0, "guest-fsfreeze-thaw": 5.0, "guest-fsfreeze-status": 10.0}
"""And for how long libvirt waits for the answer, at the most: of the freeze the rounds ask so, of a status Stillpoint itself."""
JOB_S = 100.0


def _begin(stage: Stage) -> None:
    stage.liar.start()


def _end(stage: Stage) -> None:
    stage.liar.stop()


def _enter(lie: Lie) -> Callable[[Strike], None]:
    def strike_with_lie(strike: Strike) -> None:
        _tell(strike, lie)

    strike_with_lie.__name__ = f"agent_answers_{lie}"
    return fault(weight=0.3, prepare=_begin, clean_up=_end)(strike_with_lie)


def _tell(strike: Strike, lie: Lie) -> None:
    liar, opened = strike.stage.liar, strike.stage.liar.opened
    command, waited_s = strike.random.choice(list(COMMANDS.items()))
    liar.tell(lie, command, strike.random.uniform(0.2, 7.0) if lie is Lie.LATE else waited_s)
    if lie not in (Lie.LATE, Lie.TWICE):
        liar.restart_later(strike.random.uniform(2.0, 5.0))
        until(lambda: liar.opened > opened, 30, "the agent did not start anew")
    strike.stage.api.wait(strike.job_id, JOB_S)
    strike.obstacle_s = liar.obstacle_s
    strike.stage.note(f"an obstacle for {liar.obstacle_s:.2f} s")


for _lie in Lie:
    _enter(_lie)
