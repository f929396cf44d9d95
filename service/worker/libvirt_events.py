"""Watches libvirt's event thread. A timer in that thread beats while the thread runs."""

from service import metrics
from service.heartbeat import Heartbeat
from service.hypervisor.connection import EVENT_BEAT_S, event_loop_silent_s


class LibvirtEvents(Heartbeat):
    """libvirt's event thread of this process, as a loop that is watched like the other loops."""

    def __init__(self) -> None:
        super().__init__("libvirt-events", EVENT_BEAT_S)
        metrics.watch(self)

    def silent_s(self) -> float:
        return event_loop_silent_s()
