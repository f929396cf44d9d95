"""What an agent's version string tells, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows.agent_generation import AgentFamily, AgentGeneration, DisabledText, generation_of

pytestmark = pytest.mark.windows

OLD, FROZEN, NOT_ALLOWED = DisabledText.for_this_instance, DisabledText.frozen_state, DisabledText.not_allowed

VERSIONS = [
    # version, family, freeze loop, VssOption, text while frozen, codes in errors
    ("2.9.1", AgentFamily.upstream, 10_000, False, OLD, False),
    ("5.2.0", AgentFamily.upstream, 10_000, False, OLD, False),
    ("6.0.0", AgentFamily.upstream, 10_000, False, FROZEN, False),
    ("6.1.0", AgentFamily.upstream, 60_000, False, FROZEN, False),
    ("7.2.0", AgentFamily.upstream, 60_000, False, FROZEN, False),
    ("7.2.22", AgentFamily.upstream, 60_000, False, FROZEN, False),
    ("8.0.0", AgentFamily.upstream, 60_000, True, FROZEN, False),
    ("9.0.2", AgentFamily.upstream, 60_000, True, FROZEN, False),
    ("9.1.0", AgentFamily.upstream, 60_000, True, NOT_ALLOWED, False),
    ("10.1.0", AgentFamily.upstream, 60_000, True, NOT_ALLOWED, False),
    ("10.2.0", AgentFamily.upstream, 60_000, True, NOT_ALLOWED, True),
    ("100.0.0", AgentFamily.virtio_win, 10_000, False, OLD, False),
    ("101.2.0", AgentFamily.virtio_win, 10_000, False, OLD, False),
    ("102.6.0", AgentFamily.virtio_win, 60_000, False, FROZEN, False),
    ("105.0.2", AgentFamily.virtio_win, 60_000, False, FROZEN, False),
    ("106.0.1", AgentFamily.virtio_win, 60_000, True, FROZEN, False),
    ("108.0.2", AgentFamily.virtio_win, 60_000, True, FROZEN, False),
    ("109.1.0", AgentFamily.virtio_win, 60_000, True, NOT_ALLOWED, False),
    ("110.0.2", AgentFamily.virtio_win, 60_000, True, NOT_ALLOWED, False),
    ("111.0.0", AgentFamily.virtio_win, 60_000, True, NOT_ALLOWED, True),
    ("7.3.2", AgentFamily.rhev, 10_000, False, OLD, False),
    ("7.6.2", AgentFamily.rhev, 10_000, False, OLD, False),
    ("7.2.1", AgentFamily.ambiguous, 10_000, False, OLD, False),
    ("", AgentFamily.unknown, 10_000, None, OLD, False),
    (None, AgentFamily.unknown, 10_000, None, OLD, False),
    ("unknown", AgentFamily.unknown, 10_000, None, OLD, False),
]


@pytest.mark.parametrize(("version", "family", "freeze_ms", "vss_option", "disabled", "codes"), VERSIONS)
def test_a_version_and_what_it_can(
    version: str | None, family: AgentFamily, freeze_ms: float, vss_option: bool | None, disabled: DisabledText, codes: bool
) -> None:
    found = generation_of(version)
    assert (found.family, found.freeze_loop_ms, found.has_vss_option) == (family, freeze_ms, vss_option)
    assert (found.disabled_text, found.has_hex_errors) == (disabled, codes)


def faults(found: AgentGeneration) -> list[str]:
    return [fault.code for fault in found.faults]


def test_trap_19_version_7_4_5_is_not_qemu_7_4() -> None:
    found = generation_of("7.4.5")
    assert (found.family, found.qemu_guess, found.freeze_loop_ms) == (AgentFamily.rhev, "2.x", 10_000)


def test_trap_20_versions_from_100_are_virtio_wins_own() -> None:
    assert [generation_of(version).qemu_guess for version in ("107.0.1", "109.1.0", "250.0.0")] == ["8.2", "9.1 to 9.2", None]


def test_an_ambiguous_version_keeps_only_what_both_builds_agree_on() -> None:
    found = generation_of("7.2.1")
    assert (found.has_osinfo, found.has_vss_option, faults(found)) == (None, False, ["agent_version_unclear", "backup_type_always_full"])


def test_a_current_agent_has_no_known_fault() -> None:
    assert [faults(generation_of(version)) for version in ("8.2.7", "107.0.1", "110.0.2")] == [[], [], []]


def test_the_known_faults_of_old_agents() -> None:
    assert faults(generation_of("2.9.0")) == ["freeze_may_hang", "osinfo_missing", "freeze_gives_up_early", "backup_type_always_full"]
    assert faults(generation_of("101.1.0")) == ["freeze_gives_up_early", "backup_type_always_full"]
    assert faults(generation_of("104.0.2")) == ["backup_type_always_full"]
    assert faults(generation_of("7.4.5")) == ["freeze_may_hang", "osinfo_missing", "freeze_gives_up_early", "backup_type_always_full"]
    assert faults(generation_of(None)) == ["agent_version_unclear"]


def test_every_fault_has_a_remedy_in_the_document() -> None:
    document = generation_of("2.9.0").as_document()
    assert document["family"] == "upstream"
    assert [fault["code"] for fault in document["faults"] if not fault["remedy"]] == []


@given(st.none() | st.text(max_size=20) | st.from_regex(r"[0-9]{1,8}\.[0-9]{1,8}(\.[0-9]{1,8})?", fullmatch=True))
def test_any_version_is_read(version: str | None) -> None:
    found = generation_of(version)
    assert found.freeze_loop_ms in (10_000, 60_000)
    assert found.as_document()["version"] == version
