"""The Application log with SQL Server's events, as `wevtutil qe Application /f:xml` prints it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import quoteattr

from tests.lab.windows.scenario import Scenario

FROZEN_EVENT = 3197
RESUMED_EVENT = 3198
INVALID_QUERY = 15001
_BOOT = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
_XPATH = re.compile(r"^\*(\[System\[(?P<test>.*)\]\])?$", re.DOTALL)
_KNOWN_TESTS = re.compile(r"EventID\s*=\s*\d+|EventRecordID\s*>=?\s*\d+|Provider\[@Name='[^']*'\]|\bor\b|\band\b|[()\s]")


@dataclass(frozen=True)
class Event:
    record_id: int
    event_id: int
    provider: str
    at_s: float
    data: tuple[str, ...] = ()

    def xml(self, computer: str) -> str:
        data = "".join(f"<Data>{text}</Data>" for text in self.data)
        created = (_BOOT + timedelta(seconds=self.at_s)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        return (
            "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
            f"<Provider Name={quoteattr(self.provider)}/><EventID Qualifiers='16384'>{self.event_id}</EventID>"
            "<Version>0</Version><Level>4</Level><Task>2</Task><Opcode>0</Opcode><Keywords>0x80000000000000</Keywords>"
            f"<TimeCreated SystemTime='{created}'/><EventRecordID>{self.record_id}</EventRecordID><Correlation/>"
            "<Execution ProcessID='2312' ThreadID='0'/><Channel>Application</Channel>"
            f"<Computer>{computer}</Computer><Security/></System><EventData>{data}</EventData></Event>"
        )


@dataclass
class EventLog:
    """Grows with what happens in the guest."""

    scenario: Scenario
    events: list[Event] = field(default_factory=list)
    _next_record: int = 0
    _freezes: int = 0
    _readings_since_resumption: int = 0

    def __post_init__(self) -> None:
        self._next_record = self.scenario.eventlog.first_record
        sql = self.scenario.sql
        self._write(6005, "EventLog", -7200.0, ())
        for pair in range(sql.old_pairs):
            self._write_sql(FROZEN_EVENT, -3600.0 + pair)
            self._write_sql(RESUMED_EVENT, -3600.0 + pair + 0.5)
        self._write(1704, "SceCli", -60.0, ("Security policy in the Group policy objects has been applied successfully.",))

    def io_frozen(self, at_s: float) -> None:
        self._freezes += 1
        if self._freezes == self.scenario.eventlog.cleared_in_freeze:
            self.events.clear()
            self._next_record = 1
        if self.scenario.sql.says_frozen:
            self._write_sql(FROZEN_EVENT, at_s)

    def io_resumed(self, at_s: float) -> None:
        if self.scenario.sql.says_resumed:
            self._write_sql(RESUMED_EVENT, at_s)
        self._readings_since_resumption = 0
        self._write(8224, "VSS", at_s + 0.1, ())

    def query(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Exit code, output and error output of `wevtutil` with these arguments."""
        if self.scenario.eventlog.exit_code:
            return self.scenario.eventlog.exit_code, "", "Access is denied.\r\n"
        if [word.lower() for word in arguments[:1]] not in (["qe"], ["query-events"]) or len(arguments) < 2:
            return 87, "", "The parameter is incorrect.\r\n"
        if arguments[1].lower() != "application":
            return 15007, "", "The specified channel could not be found. Check channel configuration.\r\n"
        options = dict(_option(word) for word in arguments[2:])
        self._readings_since_resumption += 1
        chosen = self._chosen(options.get("q", options.get("query", "*")))
        if chosen is None:
            return INVALID_QUERY, "", "The specified query is invalid.\r\n"
        if options.get("rd", options.get("reversedirection", "false")).lower() == "true":
            chosen.reverse()
        count = int(options.get("c", options.get("count", len(chosen))))
        return 0, "".join(f"{event.xml('WIN-LAB')}\r\n" for event in chosen[:count]), ""

    def _chosen(self, query: str) -> list[Event] | None:
        """None: not a query that this log understands."""
        shape = _XPATH.match(query.strip())
        if shape is None:
            return None
        test = shape["test"] or ""
        if _KNOWN_TESTS.sub("", test):
            return None
        ids = {int(number) for number in re.findall(r"EventID\s*=\s*(\d+)", test)}
        after = [int(number) - bool(equal) for equal, number in re.findall(r"EventRecordID\s*>(=?)\s*(\d+)", test)]
        providers = set(re.findall(r"@Name='([^']*)'", test))
        return [
            event
            for event in self.events
            if (not ids or event.event_id in ids)
            and all(event.record_id > record for record in after)
            and (not providers or event.provider in providers)
            and (event.event_id != RESUMED_EVENT or self._readings_since_resumption > self.scenario.eventlog.resumed_after_readings)
        ]

    def _write_sql(self, event_id: int, at_s: float) -> None:
        for each in self.scenario.sql.instances():
            for database in () if each.stopped else each.databases:
                self._write(event_id, each.instance, at_s, (database,))

    def _write(self, event_id: int, provider: str, at_s: float, data: tuple[str, ...]) -> None:
        self.events.append(Event(self._next_record, event_id, provider, at_s, data))
        self._next_record += 1


def _option(word: str) -> tuple[str, str]:
    key, _, value = word.lstrip("/-").partition(":")
    return key.lower(), value.strip('"')
