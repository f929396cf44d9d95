"""The writer classes that are known by their id (F§5.4): their applications, and the effect of a failed writer."""

from dataclasses import dataclass
from enum import StrEnum

from service.model.windows.vss_writers import Writer
from service.model.windows.writer_texts import WriterError

APPLICATION_FREEZE_LIMIT_MS = 60_000.0
"""Milliseconds from Freeze to Thaw. Then a writer times out (F§5.1, Microsoft)."""
EXCHANGE_FREEZE_LIMIT_MS = 20_000.0
"""Milliseconds. The shorter limit of the Exchange writer (F§5.1, Microsoft)."""


class WriterEffect(StrEnum):
    """The effect of a writer's new failure, or of a doubt about the writer."""

    lowers = "lowers"
    warns = "warns"
    ignored = "ignored"


@dataclass(frozen=True)
class Aftermath:
    """A failure that was reported after a freeze and thaw that succeeded. Proof from another source outweighs the failure."""

    state: int
    errors: frozenset[WriterError]
    reason: str
    without_proof: str


@dataclass(frozen=True)
class WriterClass:
    class_id: str
    name: str
    application: str | None = None
    restore_note: str | None = None
    on_new_failure: WriterEffect = WriterEffect.lowers
    reason: str = "A writer that fails does not vouch for its application: the point is no better than its filesystems."
    freeze_limit_ms: float = APPLICATION_FREEZE_LIMIT_MS
    #: Hosted by the VSS service, which stops when idle, so a new instance id has no meaning.
    lives_in_vss: bool = False
    #: The service of the writer stops and starts by itself.
    comes_and_goes: bool = False
    aftermaths: tuple[Aftermath, ...] = ()

    @property
    def restarts_by_itself(self) -> bool:
        return self.lives_in_vss or self.comes_and_goes

    def aftermath_of(self, writer: Writer) -> Aftermath | None:
        return next((each for each in self.aftermaths if writer.state == each.state and writer.error in each.errors), None)


SQL_SERVER = "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a"
NTDS = "b2014c9e-8711-4c5c-a5a9-3cf384484757"
EXCHANGE = "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7"

_ESE = "Its ESE database replays its own logs when the service starts."
_SQL_RECOVERS = "Runs crash recovery of every database at its start"

_SQL_AFTERMATH = Aftermath(
    state=10,
    errors=frozenset({WriterError.timed_out}),
    reason="On some guests this state follows a freeze and thaw that succeeded, and its cause is not proven.",
    without_proof="It lowers the verdict unless SQL Server's own events 3197 and 3198 of this very job show that its databases were held.",
)

_CLASSES = (
    WriterClass("e8132975-6f93-4464-a53e-1050253ae220", "System Writer", "Windows", "Windows starts as after a power cut."),
    WriterClass(
        "afbab4a2-367d-4d15-a586-71dbb18f8485", "Registry Writer", "Windows registry",
        "The registry replays its own logs at the first start.", lives_in_vss=True,
    ),
    WriterClass("542da469-d3e1-473c-9f4f-7847f01fc64f", "COM+ REGDB Writer", "COM+ registration database", lives_in_vss=True),
    WriterClass("be000cbe-11fe-4426-9c58-531aa6355fc4", "ASR Writer", "automated system recovery", lives_in_vss=True),
    WriterClass("a6ad56c2-b509-4e6c-bb19-49d8f43532f0", "WMI Writer", "WMI repository"),
    WriterClass(
        "4dc3bdd4-ab48-4d07-adb0-3bee2926fd7f", "Shadow Copy Optimization Writer", "shadow copies",
        on_new_failure=WriterEffect.warns, lives_in_vss=True,
        reason="This writer only deletes files inside a finished shadow copy, and the agent keeps none.",
    ),
    WriterClass(
        "4969d978-be47-48b0-b100-f328f07ac1e0", "BITS Writer", "background transfers",
        "Transfers that were under way continue or start again.", on_new_failure=WriterEffect.warns, comes_and_goes=True,
        reason="This writer only names the cache of unfinished transfers, so that backups leave it out.",
    ),
    WriterClass(
        "cd3f2362-8bef-46c7-9181-d62844cdc0b2", "MSSearch Service Writer", "Windows Search", "The index is rebuilt when it is damaged."
    ),
    WriterClass("d61d61c8-d73a-4eee-8cdd-f6f9786b7124", "Task Scheduler Writer", "Task Scheduler"),
    WriterClass("75dfb225-e2e4-4d39-9ac9-ffaff65ddf06", "VSS Metadata Store Writer", "VSS express writers"),
    WriterClass("0bada1de-01a9-4625-8278-69e735f39dd2", "Performance Counters Writer", "performance counters"),
    WriterClass(
        NTDS, "NTDS", "Active Directory",
        "Do not simply start it: restore in Directory Services Restore Mode and by Microsoft's rules for domain controllers, "
        "or the directory may roll back its update sequence numbers.",
    ),
    WriterClass("dd846aaa-a1b6-42a8-aaf8-03dcb6114bfd", "ADAM Writer", "AD Lightweight Directory Services", _ESE),
    WriterClass("6f5b15b5-da24-4d88-b737-63063e3a1f86", "Certificate Authority", "Certificate Services", _ESE),
    WriterClass("be9ac81e-3619-421f-920f-4c6fea9e93ad", "Dhcp Jet Writer", "DHCP server", _ESE),
    WriterClass("f08c1483-8407-4a26-8c26-6c267a629741", "WINS Jet Writer", "WINS server", _ESE),
    WriterClass("12ce4370-5bb7-4c58-a76a-e5d5097e3674", "FSRM Writer", "File Server Resource Manager"),
    WriterClass("2a40fd15-dfca-4aa8-a654-1f8c654603f6", "IIS Config Writer", "IIS configuration"),
    WriterClass("59b1f0cf-90ef-465f-9609-6ca8b2938366", "IIS Metabase Writer", "IIS metabase"),
    WriterClass("7e47b561-971a-46e6-96b9-696eeaa53b2a", "MSMQ Writer (MSMQ)", "Message Queuing"),
    WriterClass("35e81631-13e1-48db-97fc-d5bc721bb18a", "NPS VSS Writer", "Network Policy Server"),
    WriterClass(
        "1072ae1c-e5a7-4ea1-9e4a-6f7964656570", "Cluster Shared Volume VSS Writer", "failover cluster",
        "Shared volumes belong to the cluster: restore them as the cluster's documentation says.",
    ),
    WriterClass(
        "8d5194e1-e455-434a-b2e5-51296cce67df", "WIDWriter", "Windows Internal Database", f"{_SQL_RECOVERS}.",
    ),
    WriterClass("5382579c-98df-47a7-ac6c-98a6d7106e09", "TermServLicensing", "Remote Desktop Licensing", _ESE),
    WriterClass("368753ec-572e-4fc7-b4b9-ccd9bdc624cb", "TS Gateway Writer", "Remote Desktop Gateway"),
    WriterClass(
        SQL_SERVER, "SqlServerWriter", "SQL Server",
        f"{_SQL_RECOVERS}; transactions that were open are rolled back. Logs cannot be rolled forward through the writer, "
        "because the agent saves no writer documents.",
        aftermaths=(_SQL_AFTERMATH,),
    ),
    WriterClass(
        EXCHANGE, "Microsoft Exchange Writer", "Exchange",
        "Its databases are in dirty shutdown and replay their logs when they are mounted; no truncated logs are expected.",
        freeze_limit_ms=EXCHANGE_FREEZE_LIMIT_MS,
    ),
    WriterClass(
        "66841cd4-6ded-4f4b-8f17-fd23f8ddc3de", "Microsoft Hyper-V VSS Writer", "Hyper-V",
        "The machines inside start as after a power cut unless their own state says otherwise.",
    ),
)  # fmt: skip

_BY_ID = {known.class_id: known for known in _CLASSES}


def writer_class(class_id: str) -> WriterClass:
    """The failure of an unknown class lowers the verdict, because every writer stands for an application."""
    return _BY_ID.get(class_id.lower(), WriterClass(class_id.lower(), ""))


def is_known(class_id: str) -> bool:
    return class_id.lower() in _BY_ID


def shortest_freeze_limit_ms(class_ids: frozenset[str]) -> float:
    """How long the applications of these writers can stay frozen."""
    return min((writer_class(class_id).freeze_limit_ms for class_id in class_ids), default=APPLICATION_FREEZE_LIMIT_MS)
