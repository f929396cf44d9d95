"""`vssadmin list writers` as it is printed: CRLF, in the language and OEM code page of the guest."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.windows.language import LANGUAGES, Language
from tests.lab.windows.scenario import Scenario, Writer, WriterState, nth
from tests.lab.windows.systems import SYSTEMS


@dataclass
class Vssadmin:
    """Remembers what it was asked, because writers settle while they are looked at."""

    scenario: Scenario
    _listings: int = 0
    _round: int = 0
    _listings_of_round: int = 0

    def list_writers(self, rounds: int) -> str:
        """`rounds`: freezes so far that the writers took part in."""
        self._listings += 1
        if rounds != self._round:
            self._round, self._listings_of_round = rounds, 0
        self._listings_of_round += 1
        plan = self.scenario.vssadmin
        if plan.instead is not None and (not plan.listings or self._listings in plan.listings):
            return plan.instead.replace("\r\n", "\n").replace("\n", "\r\n")
        states = [(writer, self._state(writer)) for writer in self.scenario.all_writers()]
        years = SYSTEMS[self.scenario.system.name].copyright_years
        language = LANGUAGES[self.scenario.system.language]
        return text(language, years, [pair for pair in states if not pair[1].gone], preamble=plan.preamble)

    def exit_code(self) -> int:
        plan = self.scenario.vssadmin
        return plan.exit_code if not plan.listings or self._listings in plan.listings else 0

    def _state(self, writer: Writer) -> WriterState:
        if self._round == 0:
            return writer.before
        if writer.settling is not None and self._listings_of_round <= self.scenario.vssadmin.settles_after:
            return writer.settling
        return nth(writer.after, self._round) if writer.after else writer.before


def text(language: Language, years: str, writers: Sequence[tuple[Writer, WriterState]], *, preamble: bool) -> str:
    lines = [language.tool, f"(C) Copyright {years} Microsoft Corp.", ""]
    if preamble:
        lines += [*language.waiting, ""]
    for writer, state in writers:
        lines += _block(language, writer, state)
    return "\r\n".join([*lines, ""])


def _block(language: Language, writer: Writer, state: WriterState) -> list[str]:
    name, class_id, instance_id, status, last_error = language.labels
    return [
        f"{name}{language.quote}{writer.name}{language.quote}",
        f"   {class_id}{{{writer.class_id}}}",
        f"   {instance_id}{{{state.instance_id or writer.instance_id}}}",
        f"   {status}[{state.state}] {language.state(state.state)}",
        f"   {last_error}{language.last_error(state.last_error)}",
        "",
    ]
