"""What a failed agent command means, told from libvirt's code and the agent's own words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentLost,
    AgentNotAnswering,
    DomainGone,
    DomainPaused,
    LibvirtCallFailed,
    LibvirtUnavailable,
    NoAgentChannel,
    StillpointError,
)
from service.hypervisor import agent
from service.hypervisor.guest import Guest
from tests.fakes import FakeDisk, FakeDomain, agent_error, agent_silent, connection_lost, libvirt_error
from tests.fakes.libvirt_errors import (
    agent_busy,
    agent_disappeared,
    agent_not_connected,
    agent_out_of_sync,
    no_channel,
    no_domain,
    not_running,
)

libvirt: Any = _libvirt
THAW = "guest-fsfreeze-thaw"


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


MEANINGS: list[tuple[Exception, type[StillpointError]]] = [
    (agent_not_connected(), AgentNotAnswering),
    (agent_busy(), AgentBusy),
    (libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, "Timed out during operation: cannot acquire state change lock"), AgentBusy),
    (libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "operation failed: cannot acquire … due to max_queued limit"), AgentBusy),
    (libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "operation failed: something else"), LibvirtCallFailed),
    (no_channel(), NoAgentChannel),
    (not_running(), DomainPaused),
    (not_running(libvirt.VIR_FROM_DOMAIN), DomainPaused),
    (no_domain("5d1c"), DomainGone),
    (connection_lost(), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", libvirt.VIR_FROM_RPC), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_RPC, "connection closed due to keepalive timeout", libvirt.VIR_FROM_RPC), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_INVALID_CONN, "invalid connection pointer in virDomainQemuAgentCommand"), LibvirtUnavailable),
    (libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: something else"), LibvirtCallFailed),
    (libvirt_error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: a flag"), LibvirtCallFailed),
]


def _meaning(domain: FakeDomain, raised: Exception) -> StillpointError:
    domain.fail_next(THAW, raised)
    with pytest.raises(StillpointError) as caught:
        agent.call(domain, THAW)
    assert caught.value.detail
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(("raised", "meaning"), MEANINGS, ids=[f"{kind.__name__}-{number}" for number, (_, kind) in enumerate(MEANINGS)])
def test_the_meaning_of_an_error(domain: FakeDomain, raised: Exception, meaning: type[StillpointError]) -> None:
    assert type(_meaning(domain, raised)) is meaning


@pytest.mark.parametrize("silence", [agent_silent, agent_out_of_sync, agent_disappeared])
def test_an_answer_that_is_lost(domain: FakeDomain, silence: Callable[[], Exception]) -> None:
    assert type(_meaning(domain, silence())) is AgentNotAnswering


ANSWERED = [
    ("Command guest-fsfreeze-thaw has been disabled", AgentCommandBlocked),
    ("Command guest-fsfreeze-thaw has been disabled: the agent is in frozen state", AgentCommandBlocked),
    ("Command guest-fsfreeze-thaw has been disabled: the command is not allowed", AgentCommandBlocked),
    ("The command guest-fsfreeze-thaw has been disabled for this instance", AgentCommandBlocked),
    ("The command guest-fsfreeze-thaw has not been found", AgentCommandBlocked),
    ("fsfreeze hook has failed with status 3", AgentCommandFailed),
    ("child process has failed to execute fsfreeze hook: exit status 3", AgentCommandFailed),
    ("couldn't hold writes: fsfreeze is limited up to 10 seconds:", AgentCommandFailed),
    ("Failed to execute child process “/bin/no-such-program” (No such file or directory)", AgentCommandFailed),
    ("the answer to 'guest-fsfreeze-thaw': has\ntwo lines: and colons", AgentCommandFailed),
    ("", AgentCommandFailed),
]


@pytest.mark.parametrize(("text", "meaning"), ANSWERED)
def test_an_answer_that_is_an_error(domain: FakeDomain, text: str, meaning: type[StillpointError]) -> None:
    answered = _meaning(domain, agent_error(THAW, text))
    assert (type(answered), answered.facts["message"]) == (meaning, text)


# As libvirt-l10n has them, 9.0 and 11.3. {0} is the command, {1} what the agent said.
SAID = [
    "QEMU সহায়ক কমান্ড '{0}' এক্সিকিউট কৰিবলে অক্ষম: {1}",
    "nedaří se vykonat příkaz QEMU agenta „{0}“: {1}",
    "Agent QEMU-befehl '{0}' kann nicht ausgeführt werden: {1}",
    "No se puede ejecutar comando de agente QEMU '{0}': {1}",
    "Impossible d'exécuter la commande '{0}' de l'agent QEMU : {1}",
    "QEMU એજન્ટ આદેશ '{0}' ને ચલાવવાનું અસમર્થ: {1}",
    "QEMU エージェントコマンド '{0}' を実行できません: {1}",
    "QEMU 에이전트 명령 '{0}'을 실행할 수 없음: {1}",
    "ക്യുഇഎംയു ഏജന്റ് കമാന്‍ഡ് '{0}' നടപ്പിലാക്കുവാന്‍ സാധ്യമല്ല: {1}",
    'não foi possível executar o comando de agente QEMU "{0}": {1}',
    "не удалось выполнить команду агента QEMU «{0}»: {1}",
    "kan inte köra QEMU-agentkommandot ”{0}”: {1}",
    "QEMU ஏஜென்ட் கட்டளை '{0}' ஐ செயல்படுத்த முடியவில்லை: {1}",
    "无法执行 QEMU 代理命令 '{0}'：{1}",
]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize(("code", "prefix"), [(libvirt.VIR_ERR_INTERNAL_ERROR, "внутренняя ошибка: "), (113, "게스트 명령이 실패함: ")])
def test_libvirt_speaks_the_language_of_its_host_and_the_agent_english(domain: FakeDomain, said: str, code: int, prefix: str) -> None:
    hold_lost = _meaning(domain, libvirt_error(code, prefix + said.format(THAW, "couldn't hold writes: fsfreeze is limited")))
    assert (type(hold_lost), hold_lost.facts["message"]) == (AgentCommandFailed, "couldn't hold writes: fsfreeze is limited")
    blocked = _meaning(domain, libvirt_error(code, prefix + said.format(THAW, f"Command {THAW} has been disabled")))
    assert (type(blocked), blocked.facts["message"]) == (AgentCommandBlocked, f"Command {THAW} has been disabled")


def test_in_marathi_more_words_follow_what_the_agent_said(domain: FakeDomain) -> None:
    refused = _meaning(domain, libvirt_error(113, f"… QEMU एजेंट आदेश '{THAW}': fsfreeze hook has failed चालवणे अशक्य"))
    assert (type(refused), refused.facts["message"]) == (AgentCommandFailed, "fsfreeze hook has failed चालवणे अशक्य")


def test_code_113_alone_says_that_the_agent_answered(domain: FakeDomain) -> None:
    refused = _meaning(domain, libvirt_error(113, "Befehl des Gast-Agenten fehlgeschlagen"))
    assert (type(refused), refused.facts["message"]) == (AgentCommandFailed, "Befehl des Gast-Agenten fehlgeschlagen")


def test_an_answer_that_is_neither_error_nor_success_is_not_an_answer_to_a_thaw(domain: FakeDomain) -> None:
    for words in ("QEMU agent command '{0}' returned neither error nor success", "unable to execute QEMU agent command '{0}'"):
        neither = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, f"internal error: {words.format(THAW)}")
        assert type(_meaning(domain, neither)) is LibvirtCallFailed


NOT_CONFIGURED = [
    "QEMU Gast-Agent ist nicht konfiguriert",
    "L'agent invité QEMU n'est pas configuré",
    "QEMU ゲストエージェントが設定されていません",
    "агент гостьової системи QEMU не налаштовано",
    "未配置 QEMU 虚拟机代理",
]


@pytest.mark.parametrize("words", NOT_CONFIGURED)
def test_no_channel_in_other_languages(domain: FakeDomain, words: str) -> None:
    assert type(_meaning(domain, libvirt_error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, f"…: {words}"))) is NoAgentChannel


LOCKED = [
    ("nedaří se získat zámek změny stavu (drženo agent=remoteDispatch)", "agent=remoteDispatch"),
    ("no se puede conseguir el bloqueo de cambio de estado (retenido por el agente=remoteDispatch)", "agent=remoteDispatch"),
    ("不能获取状态更改锁（由 monitor=remoteA agent=remoteB 持有）", "monitor=remoteA agent=remoteB"),
    ("max_queued 제한으로 인해 상태 변경 잠금을 획득할 수 없습니다", agent.HOLDER_UNKNOWN),
    ("Kann Status-Änderungs-Lock nicht abrufen", agent.HOLDER_UNKNOWN),
]


@pytest.mark.parametrize(("words", "holder"), LOCKED)
def test_who_holds_the_lock_in_other_languages(domain: FakeDomain, words: str, holder: str) -> None:
    busy = _meaning(domain, libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, f"…: {words}"))
    assert (type(busy), busy.facts["held_by"]) == (AgentBusy, holder)


def test_an_agent_that_libvirt_refuses_twice_at_once_though_its_port_is_open_is_lost(domain: FakeDomain) -> None:
    domain.agent.is_lost = True
    with pytest.raises(AgentLost) as caught:
        agent.call(domain, THAW)
    assert (caught.value.facts["domain"], caught.value.facts["command"]) == ("db1", THAW)


def test_an_agent_whose_port_is_closed_is_not_lost_but_not_there(domain: FakeDomain) -> None:
    domain.agent.connected = False
    with pytest.raises(AgentNotAnswering) as caught:
        agent.call(domain, THAW)
    assert type(caught.value) is AgentNotAnswering


def test_an_agent_that_is_silent_for_as_long_as_libvirt_waits_is_not_lost(domain: FakeDomain) -> None:
    domain.agent.answers = False
    with pytest.raises(AgentNotAnswering) as caught:
        agent.call(domain, THAW)
    assert type(caught.value) is AgentNotAnswering


def test_an_agent_that_answers_when_it_is_asked_again_is_not_lost(domain: FakeDomain) -> None:
    domain.fail_next(THAW, agent_disappeared())
    with pytest.raises(AgentNotAnswering) as caught:
        agent.call(domain, THAW)
    assert type(caught.value) is AgentNotAnswering


def test_the_words_of_the_agent_are_kept_without_those_of_libvirt(domain: FakeDomain) -> None:
    domain.fail_next(THAW, agent_error(THAW, "failed to add D: to snapshot set: 'x': Windows error 0x8004230e: "))
    with pytest.raises(AgentCommandFailed) as caught:
        agent.call(domain, THAW)
    assert caught.value.facts["message"] == "failed to add D: to snapshot set: 'x': Windows error 0x8004230e:"


def test_a_time_limit_reaches_libvirt_in_whole_seconds_and_never_as_zero() -> None:
    limits: list[int] = []

    class Listening(FakeDomain):
        def agent_command(self, command: str, timeout_s: int) -> str:
            limits.append(timeout_s)
            return super().agent_command(command, timeout_s)

    listening = Listening("db1", [])
    for milliseconds in (1, 999, 1_000, 1_001, 120_000):
        agent.call(listening, "guest-ping", timeout_ms=milliseconds)
    assert limits == [1, 1, 1, 2, 120]


@pytest.mark.parametrize("reply", [{}, [], None, 7, {"error": {"class": "GenericError"}}, "return"])
def test_an_answer_that_is_none_is_not_believed(domain: FakeDomain, reply: Any) -> None:
    domain.answer_next("guest-ping", reply)
    with pytest.raises(AgentAnswerUnreadable, match="guest-ping"):
        agent.call(domain, "guest-ping")


@pytest.mark.parametrize("count", [None, "2", 2.0, [2], {"frozen": 2}, float("inf")])
def test_a_count_that_is_none_is_not_believed(domain: FakeDomain, count: Any) -> None:
    guest = Guest(domain, "fake:///")
    for command in ("guest-fsfreeze-freeze", THAW):
        domain.answer_next(command, {"return": count})
    with pytest.raises(AgentAnswerUnreadable):
        guest.freeze(None, 1_000)
    with pytest.raises(AgentAnswerUnreadable):
        guest.thaw(1_000)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("guest-exec", {"return": {}}),
        ("guest-exec", {"return": 7}),
        ("guest-exec-status", {"return": {"exitcode": 0}}),
        ("guest-exec-status", {"return": [True]}),
        ("guest-exec-status", {"return": {"exited": True, "exitcode": 0, "out-data": 7}}),
        ("guest-exec-status", {"return": {"exited": True, "exitcode": 0, "out-data": "x"}}),
    ],
)
def test_a_program_whose_result_makes_no_sense(domain: FakeDomain, command: str, reply: Any) -> None:
    domain.answer_next(command, reply)
    with pytest.raises(AgentAnswerUnreadable, match=command):
        Guest(domain, "fake:///").execute("/bin/sync", budget_ms=1_000)


def test_only_frozen_is_frozen(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    for said, expected in (("frozen", True), ("thawed", False), (True, False), ({"status": "frozen"}, False)):
        domain.answer_next("guest-fsfreeze-status", {"return": said})
        assert guest.is_frozen() is expected


def test_an_answer_that_is_not_utf_8_is_unreadable_and_crashes_nothing(domain: FakeDomain) -> None:
    domain.fail_next(THAW, SystemError("<built-in function virDomainQemuAgentCommand> returned a result with an exception set"))
    with pytest.raises(AgentAnswerUnreadable):
        agent.call(domain, THAW)
