"""Starts, stops, continues and defines a domain."""

import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial

from service.errors import LibvirtCallFailed
from service.hypervisor.calls import LibvirtCalls
from service.hypervisor.handle import DomainHandle, libvirt
from service.hypervisor.states import STATES
from service.model.inventory import DomainState

POLL_S = 0.1
"""Seconds between two looks whether the guest has shut down."""


class PauseReason(StrEnum):
    io_error = "io_error"
    user = "user"
    moving = "moving"
    """It is migrated, saved, restored or snapshot."""
    other = "other"


_MOVING = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_SAVE,
        libvirt.VIR_DOMAIN_PAUSED_DUMP,
        libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT,
        libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
)


class Power:
    def __init__(self, handle: DomainHandle, calls: LibvirtCalls) -> None:
        self._handle = handle
        self._calls = calls

    def pause_reason(self) -> PauseReason | None:
        state, reason = self._calls("virDomainGetState", self._handle.state)
        if state != libvirt.VIR_DOMAIN_PAUSED:
            return None
        if reason in _MOVING:
            return PauseReason.moving
        return {libvirt.VIR_DOMAIN_PAUSED_IOERROR: PauseReason.io_error, libvirt.VIR_DOMAIN_PAUSED_USER: PauseReason.user}.get(
            reason, PauseReason.other
        )

    def start(self) -> None:
        self._unless("virDomainCreate", self._handle.start, DomainState.running)

    def stop(self, graceful_s: float, safe_point: Callable[[], None] | None = None) -> bool:
        """Whether the guest shut itself down within `graceful_s`. Otherwise the domain was switched off."""
        if self._state() is DomainState.shut_off:
            return True
        deadline = time.monotonic() + graceful_s
        if graceful_s > 0:
            self._ask_to_shut_down()
            while time.monotonic() < deadline:
                if safe_point is not None:
                    safe_point()
                if self._state() is DomainState.shut_off:
                    return True
                time.sleep(POLL_S)
        self.destroy()
        return False

    def destroy(self) -> None:
        self._unless("virDomainDestroy", self._handle.destroy, DomainState.shut_off)

    def resume(self) -> None:
        self._unless("virDomainResume", self._handle.resume, DomainState.running)

    def undefine(self, *, keeps_firmware: bool) -> None:
        """`keeps_firmware`: the files of NVRAM and TPM stay."""
        kept = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM
        removed = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_TPM
        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | (kept if keeps_firmware else removed)
        )
        self._calls("virDomainUndefineFlags", lambda: self._handle.undefine(flags))

    def define(self, xml: str) -> None:
        self._calls("virDomainDefineXML", lambda: self._handle.define(xml))

    def _ask_to_shut_down(self) -> None:
        """By the agent, and also by the power button if that failed.

        The agent of a guest that shuts down goes away, often before it has answered. So an error does not mean that the guest stays.
        """
        for flags in (0, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN):
            with suppress(LibvirtCallFailed):
                self._calls("virDomainShutdownFlags", partial(self._handle.shut_down, flags))
                return

    def _unless(self, call: str, function: Callable[[], None], wanted: DomainState) -> None:
        """libvirt refuses to start what runs and to stop what is off. A repeated call of recovery shall not fail."""
        try:
            self._calls(call, function)
        except LibvirtCallFailed:
            if self._state() is not wanted:
                raise

    def _state(self) -> DomainState:
        state, _ = self._calls("virDomainGetState", self._handle.state)
        return STATES.get(state, DomainState.other)
