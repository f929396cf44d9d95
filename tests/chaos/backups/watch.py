"""Looks all the time whether the guest is paused by an error of its disk: a moment of it is too much."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import libvirt

from tests.chaos.stage import Stage
from tests.lab.daemon import connect

EVERY_S = 0.05


class PauseWatch:
    """`seen`: how often the domain was found paused by an I/O error."""

    def __init__(self, name: str) -> None:
        self.seen = 0
        self._name = name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        connection: Any = None
        while not self._stopping.wait(EVERY_S):
            # libvirtd may be killed, and the guest may be off.
            with suppress(libvirt.libvirtError):
                connection = connection or connect()
                self._look(connection)
                continue
            connection = None
            time.sleep(EVERY_S)

    def _look(self, connection: Any) -> None:
        state, reason = connection.lookupByName(self._name).state()
        if (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
            self.seen += 1


@contextmanager
def watched(stage: Stage) -> Iterator[PauseWatch]:
    watch = PauseWatch(stage.guest.name)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
