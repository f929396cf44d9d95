"""A boot that does not come to its end: what can be known of it from outside, so that it can be explained afterwards."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from tests.lab.console import Console
from tests.lab.places import LabError

SILENCE_S = 30.0
"""Seconds from the start of a guest until its first program says something. Alone on a machine without KVM that takes 2 s."""
_LOG = Path("/var/log/libvirt/qemu") if os.geteuid() == 0 else Path.home() / ".cache/libvirt/qemu/log"


def wait_for_first_words(console: Console, domain: Any, start_again: Callable[[], None]) -> None:
    """An emulated machine that says nothing is started once more: no program of the guest has run, so its disks are as they were."""
    deadline = time.monotonic() + SILENCE_S
    while not console.text():
        if time.monotonic() > deadline:
            print(f"a guest said nothing within {SILENCE_S:.0f} s of its start, and is started again\n{facts(domain)}", file=sys.stderr)
            start_again()
            return
        time.sleep(0.02)


def with_facts(error: LabError, domain: Any) -> LabError:
    return LabError(f"{error}\n{facts(domain)}")


def facts(domain: Any) -> str:
    """Whether QEMU runs, whether it computes, where its processor is, and what it has complained of."""
    told = []
    for what, ask in (("state", _state), ("processor", _computes), ("QEMU's log", _log)):
        try:
            told.append(f"{what}: {ask(domain)}")
        except (libvirt.libvirtError, OSError) as error:
            told.append(f"{what}: not known ({error})")
    return "\n".join(told)


def _state(domain: Any) -> str:
    state, reason = domain.state()
    return f"{state}, reason {reason} ({libvirt.VIR_DOMAIN_RUNNING} is running); this machine's load is {os.getloadavg()[0]:.1f}"


def _computes(domain: Any) -> str:
    """A guest that waits for an interrupt that was lost computes nothing, and one that turns in a circle all the time."""
    before, first = _seconds(domain), _registers(domain)
    time.sleep(1)
    return f"{before:.1f} s until then, {_seconds(domain) - before:.2f} s in the second after it\n{first}\n{_registers(domain)}"


def _seconds(domain: Any) -> float:
    return float(domain.info()[4]) / 1e9


def _registers(domain: Any) -> str:
    text: str = libvirt_qemu.qemuMonitorCommand(domain, "info registers", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    return "; ".join(line.strip() for line in text.splitlines() if "RIP=" in line or "EIP=" in line) or text[:300]


def _log(domain: Any) -> str:
    return (_LOG / f"{domain.name()}.log").read_text(errors="replace")[-600:]
