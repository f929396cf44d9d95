"""A boot that says nothing: it is begun once more, and what can be known of it is told."""

from pathlib import Path

import libvirt
import libvirt_qemu
import pytest

from tests.lab import boot
from tests.lab.console import Console


class SilentDomain:
    """Computes half a second each time somebody looks."""

    def __init__(self) -> None:
        self.computed_ns = 0

    def name(self) -> str:
        return "lab-silent"

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_RUNNING, 1

    def info(self) -> list[int]:
        self.computed_ns += 500_000_000
        return [libvirt.VIR_DOMAIN_RUNNING, 0, 0, 1, self.computed_ns]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SilentDomain:
    monkeypatch.setattr(boot, "_LOG", tmp_path)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", lambda *_: "RAX=1\nRIP=ffffffff81000000 RFL=2\n")
    return SilentDomain()


def test_a_guest_that_says_nothing_is_started_again_once(domain: SilentDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "SILENCE_S", 0.1)
    starts: list[str] = []
    boot.wait_for_first_words(Console(tmp_path / "serial.log"), domain, lambda: starts.append("again"))
    assert starts == ["again"]


def test_a_guest_that_has_spoken_is_not_started_again(domain: SilentDomain, tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_text("LAB boots\n")
    boot.wait_for_first_words(Console(tmp_path / "serial.log"), domain, lambda: pytest.fail("it was started again"))


def test_the_facts_say_whether_it_computes_where_it_is_and_what_qemu_said(domain: SilentDomain, tmp_path: Path) -> None:
    (tmp_path / "lab-silent.log").write_text("qemu-system-x86_64: no such thing")
    told = boot.facts(domain)
    assert "0.50 s in the second after it" in told
    assert "RIP=ffffffff81000000" in told
    assert "no such thing" in told


def test_what_cannot_be_known_hides_nothing_else(domain: SilentDomain) -> None:
    told = boot.facts(domain)
    assert "QEMU's log: not known" in told
    assert "RIP=" in told
