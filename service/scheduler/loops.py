"""Everything that is due without anybody asking, each in a thread of its own."""

import threading
from collections.abc import Callable

from service.config import Settings
from service.db.engine import Database
from service.scheduler import proving, pruning, retention, scheduling, sending, verification
from service.scheduler.loop import Loop


def loops_of(settings: Settings, database: Database, wake: Callable[[], None], stopping: threading.Event) -> list[Loop]:
    """`wake`: called when a job was made. `stopping`: ends all of them."""
    prunes = pruning.PruningLooks(settings, database, stopping=stopping)
    verifies = verification.VerificationLooks(database, wake, stopping=stopping)
    retains = retention.RetentionLooks(database, wake, stopping=stopping)
    proves = proving.ProvingLooks(database, wake, stopping=stopping)
    loops = [
        Loop.every(pruning.LOOK_S, "pruning", prunes.look, stopping),
        Loop.every(verification.LOOK_S, "verification", verifies.look, stopping),
        Loop.every(retention.LOOK_S, "retention", retains.look, stopping),
        Loop.every(proving.LOOK_S, "proving", proves.look, stopping),
    ]
    if settings.scheduler == "on":
        scheduler = scheduling.Scheduler(settings, database, wake=wake, stopping=stopping)
        sends = sending.SendingLooks(database, wake, stopping=stopping)
        loops.append(Loop("scheduling", scheduler.look, stopping, failed_s=scheduling.FAILED_S))
        loops.append(Loop.every(sending.LOOK_S, "sending", sends.look, stopping))
    return loops
