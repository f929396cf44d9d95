"""Whether libvirt's event thread goes round: a timer of its own beats in it."""

from service import metrics
from service.heartbeat import Heartbeat
from service.hypervisor.connection import EVENT_BEAT_S, event_loop_silent_s


class LibvirtEvents(Heartbeat):
    """The thread of the process, as a loop that is watched like the others."""

    def __init__(self) -> None:
        super().__init__("libvirt-events", EVENT_BEAT_S)
        metrics.watch(self)

    def silent_s(self) -> float:
        return event_loop_silent_s()
