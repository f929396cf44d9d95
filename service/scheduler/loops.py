"""Everything that is due without anybody asking, each in a thread of its own."""

from collections.abc import Callable

from service.config import Settings
from service.db.engine import Database
from service.scheduler.proving import ProvingLoop
from service.scheduler.pruning import PruningLoop
from service.scheduler.retention import RetentionLoop
from service.scheduler.scheduling import SchedulingLoop
from service.scheduler.verification import VerificationLoop

Loop = PruningLoop | VerificationLoop | RetentionLoop | ProvingLoop | SchedulingLoop


def loops_of(settings: Settings, database: Database, wake: Callable[[], None]) -> list[Loop]:
    """`wake`: called when a job was made."""
    loops: list[Loop] = [
        PruningLoop(settings, database),
        VerificationLoop(database, wake),
        RetentionLoop(database, wake),
        ProvingLoop(database, wake),
    ]
    if settings.scheduler == "on":
        loops.append(SchedulingLoop(settings, database, wake))
    return loops
