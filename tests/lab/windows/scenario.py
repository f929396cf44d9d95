"""A scenario: everything about one Windows guest that the simulator plays, read from one TOML file. scenarios/README.md explains it."""

import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tests.lab.windows.language import LanguageName, LastError
from tests.lab.windows.systems import SystemName

SCENARIOS = Path(__file__).with_name("scenarios")

# In the order in which vssadmin tends to list them.
WRITER_CLASSES = {
    "Task Scheduler Writer": "d61d61c8-d73a-4eee-8cdd-f6f9786b7124",
    "VSS Metadata Store Writer": "75dfb225-e2e4-4d39-9ac9-ffaff65ddf06",
    "Performance Counters Writer": "0bada1de-01a9-4625-8278-69e735f39dd2",
    "System Writer": "e8132975-6f93-4464-a53e-1050253ae220",
    "ASR Writer": "be000cbe-11fe-4426-9c58-531aa6355fc4",
    "Shadow Copy Optimization Writer": "4dc3bdd4-ab48-4d07-adb0-3bee2926fd7f",
    "WMI Writer": "a6ad56c2-b509-4e6c-bb19-49d8f43532f0",
    "Registry Writer": "afbab4a2-367d-4d15-a586-71dbb18f8485",
    "COM+ REGDB Writer": "542da469-d3e1-473c-9f4f-7847f01fc64f",
    "SqlServerWriter": "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a",
    "NTDS": "b2014c9e-8711-4c5c-a5a9-3cf384484757",
    "Microsoft Exchange Writer": "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7",
    "Microsoft Hyper-V VSS Writer": "66841cd4-6ded-4f4b-8f17-fd23f8ddc3de",
    "IIS Config Writer": "2a40fd15-dfca-4aa8-a654-1f8c654603f6",
    "Dhcp Jet Writer": "be9ac81e-3619-421f-920f-4c6fea9e93ad",
    "BITS Writer": "4969d978-be47-48b0-b100-f328f07ac1e0",
}
_ON_EVERY_WINDOWS = tuple(WRITER_CLASSES)[:9]
_INSTANCES = uuid.UUID("5b8f2f3e-6a0e-4bb3-9d57-6b0d6ce0a9f1")

Seconds = Annotated[float, Field(ge=0)]
FreezeFailure = Literal[
    "exited_without_frozen_event",
    "frozen_event_timeout",
    "gather_writer_metadata",
    "start_snapshot_set",
    "add_to_snapshot_set",
    "prepare_for_backup",
    "gather_writer_status",
    "do_snapshot_set",
]
ThawFailure = Literal["unexpected_error_in_provider", "do_snapshot_set", "complete_backup"]
T = TypeVar("T")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Agent(_Table):
    version: str = "107.0.1"
    blocked: tuple[str, ...] = ()
    latency_s: Seconds = 0.001
    vss: Literal["ok", "dead"] = "ok"
    truncated_key: Literal["by_version", "always", "when_cut"] = "by_version"


class SystemTable(_Table):
    name: SystemName = "2022"
    language: LanguageName = "en"
    code_page: str | None = None
    #: Laid over the document of the system; an empty text removes the key.
    osinfo: dict[str, str] = {}


class Volume(_Table):
    """`disks`: numbers of the guest's disks under it; several when it spans them."""

    guid: str
    mountpoint: str | None = None
    disks: tuple[int, ...] = (0,)
    type: str = "NTFS"
    fixed: bool = True
    total_bytes: int | None = None
    used_bytes: int | None = None


class Storage(_Table):
    report_serials: bool = True
    report_pci: bool = True
    #: Instead of one partition C: (and its System Reserved) on the first disk and one letter on each further disk.
    volumes: tuple[Volume, ...] = ()
    #: Whether Windows can be asked through PowerShell which volumes are fixed.
    powershell: bool = True


class Freeze(_Table):
    """One freeze. `delay_s` is from the request to the reply; without it a failure comes when the real one would."""

    delay_s: Seconds | None = None
    fails: FreezeFailure | None = None
    hresult: int | None = None
    volume: str = "D:"
    #: The number that is answered, whatever was frozen.
    count: int | None = None
    #: False: the agent says frozen, and nothing is held.
    holds: bool = True
    #: Instead of `hold.limit_s`, for this freeze.
    hold_limit_s: Seconds | None = None


class Thaw(_Table):
    delay_s: Seconds = 0.05
    fails: ThawFailure | None = None
    hresult: int | None = None
    count: int | None = None


class Hold(_Table):
    """How long volsnap holds writes: `limit_s`, less up to `jitter_s`. The hold begins a little before the freeze reply."""

    limit_s: Seconds = 10.0
    jitter_s: Seconds = 0.05
    before_reply_s: Seconds = 0.02


class Restart(_Table):
    """The agent's service restarts, or another tool thaws: `after_freeze_s` after the hold began. Requests are lost while it is away."""

    after_freeze_s: Seconds
    away_s: Seconds = 0.0
    freezes: tuple[int, ...] = (1,)


class WriterState(_Table):
    state: int = 1
    last_error: LastError = "no_error"
    #: Another instance id than before: the service behind it was restarted.
    instance_id: str | None = None
    gone: bool = False


class Writer(_Table):
    """`before` any freeze; `after` the first, the second, ... freeze; `settling` while vssadmin is asked too early."""

    name: str
    class_id: str = ""
    instance_id: str = ""
    before: WriterState = WriterState()
    after: tuple[WriterState, ...] = ()
    settling: WriterState | None = None

    @model_validator(mode="before")
    @classmethod
    def _ids(cls, table: Any) -> Any:
        if not isinstance(table, Mapping) or "name" not in table:
            return table
        name = table["name"]
        ids = {"class_id": WRITER_CLASSES.get(name, str(uuid.uuid5(_INSTANCES, f"class {name}"))), "instance_id": _instance(name)}
        return {**ids, **table}


class Vssadmin(_Table):
    """`settles_after`: so many listings after a thaw show the `settling` states. `polls`: how often the status is not yet."""

    polls: int = 1
    settles_after: int = 1
    preamble: bool = False
    #: The agent keeps so many bytes of the output.
    cut_at_bytes: int | None = None
    #: Printed instead of the writers; `listings` says in which listings (1 is the first), empty: in all.
    instead: str | None = None
    exit_code: int = 0
    listings: tuple[int, ...] = ()


class Registry(_Table):
    """`vss_option`: a number, "absent", or the text that stands where the number should."""

    vss_option: int | str = 1
    value_type: str = "REG_DWORD"


class SqlInstance(_Table):
    """`instance`: the provider of its events. `databases` write them; `silent` are there as well, and write none."""

    instance: str
    databases: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    #: Its service does not run: it writes no event and nobody can log in.
    stopped: bool = False


class Sql(_Table):
    """SQL Server writes 3197 for each database when its I/O is frozen and 3198 when it goes on. `old_pairs` are of another backup."""

    instance: str = "MSSQLSERVER"
    databases: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    says_frozen: bool = True
    says_resumed: bool = True
    old_pairs: int = 0
    more: tuple[SqlInstance, ...] = ()
    #: The agent's account may log in and see which databases there are.
    may_log_in: bool = True

    def instances(self) -> list[SqlInstance]:
        first = SqlInstance(instance=self.instance, databases=self.databases, silent=self.silent)
        return [first, *self.more]


class EventLog(_Table):
    first_record: int = 48211
    polls: int = 1
    #: wevtutil ends with this and says nothing.
    exit_code: int = 0
    #: The agent keeps so many bytes of what wevtutil prints.
    cut_at_bytes: int | None = None
    #: The events of the resumption can be read only after so many readings.
    resumed_after_readings: int = 0
    #: Somebody clears the log during the freeze of this number: record ids begin at 1 again.
    cleared_in_freeze: int | None = None


class Program(_Table):
    """Any other program, or another answer of a known one; found by its file name and, if given, words in its arguments."""

    name: str
    arguments: tuple[str, ...] = ()
    output: str = ""
    error_output: str = ""
    exit_code: int = 0
    polls: int = 1


class LostReply(_Table):
    """The `nth` command of this name is carried out, and its answer never arrives."""

    command: str
    nth: int = 1


class Scenario(_Table):
    title: str = ""
    agent: Agent = Agent()
    system: SystemTable = SystemTable()
    storage: Storage = Storage()
    hold: Hold = Hold()
    freeze: tuple[Freeze, ...] = (Freeze(),)
    thaw: tuple[Thaw, ...] = (Thaw(),)
    restart: Restart | None = None
    #: The writers that every Windows has, all stable, before those of `writers`.
    default_writers: bool = True
    writers: tuple[Writer, ...] = ()
    vssadmin: Vssadmin = Vssadmin()
    registry: Registry = Registry()
    sql: Sql = Sql()
    eventlog: EventLog = EventLog()
    programs: tuple[Program, ...] = ()
    lost_replies: tuple[LostReply, ...] = ()
    seed: int = 1

    @field_validator("freeze", "thaw")
    @classmethod
    def _one_at_least(cls, plan: tuple[Any, ...]) -> tuple[Any, ...]:
        if not plan:
            raise ValueError("a plan needs one entry at least")
        return plan

    def all_writers(self) -> list[Writer]:
        named = {writer.name for writer in self.writers}
        standing = [Writer(name=name) for name in _ON_EVERY_WINDOWS if self.default_writers and name not in named]
        return [*standing, *self.writers]


def nth(plan: Sequence[T], number: int) -> T:
    """The entry of a plan for the first, second, ... time; the last one goes on for ever."""
    return plan[min(number, len(plan)) - 1]


def scenario_names() -> list[str]:
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load(source: str | Path, changes: Mapping[str, Any] | None = None) -> Scenario:
    """A scenario by its name in scenarios/ or by path. `changes` are laid over its tables, as if the file said so.

    Raises FileNotFoundError, tomllib.TOMLDecodeError, and pydantic.ValidationError for a key or value that the schema does not know.
    """
    path = source if isinstance(source, Path) else SCENARIOS / f"{source}.toml"
    with path.open("rb") as file:
        table = tomllib.load(file)
    return Scenario.model_validate(_laid_over(table, changes or {}))


def _laid_over(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _instance(name: str) -> str:
    return str(uuid.uuid5(_INSTANCES, name))
