"""SQL Server's own events, tied to one job: proof only when every database that should be there was frozen and resumed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows import event_xml, sql_evidence
from service.model.windows.sql_evidence import IO_FROZEN, IO_RESUMED, SqlEvidence, SqlProblem
from service.model.windows.sql_server import InstanceState, SqlInstance

pytestmark = pytest.mark.windows

NAMESPACE = "xmlns='http://schemas.microsoft.com/win/2004/08/events/event'"


def event(record: int, number: int, database: str, source: str = "MSSQLSERVER", namespace: str = NAMESPACE) -> str:
    return (
        f"<Event {namespace}><System><Provider Name='{source}'/><EventID Qualifiers='16384'>{number}</EventID>"
        f"<Level>4</Level><TimeCreated SystemTime='2026-03-01T10:00:{record % 60:02d}.000000000Z'/>"
        f"<EventRecordID>{record}</EventRecordID><Channel>Application</Channel></System>"
        f"<EventData><Data>{database}</Data><Binary>7D0C00000A000000</Binary></EventData></Event>"
    )


def printed(*events: str) -> bytes:
    return "\r\n".join(events).encode()


def pairs(*databases: str, source: str = "MSSQLSERVER", first: int = 101) -> tuple[str, ...]:
    """All are frozen, then all are resumed."""
    frozen = [event(first + place, IO_FROZEN, name, source) for place, name in enumerate(databases)]
    return (*frozen, *[event(first + len(databases) + place, IO_RESUMED, name, source) for place, name in enumerate(databases)])


SYSTEM = ("master", "model", "msdb")
FROZEN_AND_RESUMED = pairs(*SYSTEM, "orders")


def has(*databases: str, instance: str = "MSSQLSERVER", state: InstanceState = InstanceState.listed) -> SqlInstance:
    return SqlInstance(instance, state, (*SYSTEM, *databases) if state is InstanceState.listed else None)


ORDERS = (has("orders"),)


def gather(output: bytes, *, after_record_id: int, instances: tuple[SqlInstance, ...] | None = None) -> SqlEvidence:
    """As a job does with one reading. `instances` None: those whose databases wrote events."""
    page = event_xml.read(output)
    if not page.is_whole:
        return sql_evidence.unreadable(page.events)
    evidence = sql_evidence.paired([each for each in page.events if each.record_id > after_record_id])
    sources = dict.fromkeys(each.source for each in evidence.events)
    seen = [has(*evidence.databases, instance=source.removeprefix("MSSQL$")) for source in sources]
    return sql_evidence.complete(evidence, seen if instances is None else instances)


def newest_record_id(output: bytes) -> int | None:
    return event_xml.read(output).newest


def test_both_events_of_every_database_are_proof() -> None:
    evidence = gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, instances=ORDERS)
    assert evidence.is_proof
    assert evidence.databases == (*SYSTEM, "orders")
    assert "master, model, msdb, orders" in evidence.detail


# --- which should be there ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "instances", "missing"),
    [
        (pairs("model"), ORDERS, ("master", "msdb", "orders")),
        (pairs(*SYSTEM), ORDERS, ("orders",)),
        (pairs("orders", "sales"), (has("orders", "sales"),), SYSTEM),
        (pairs("orders"), (has(state=InstanceState.unknown),), SYSTEM),
    ],
    ids=["model alone", "one database silent", "no system databases", "the list could not be had"],
)
def test_events_of_some_databases_prove_nothing(
    events: tuple[str, ...], instances: tuple[SqlInstance, ...], missing: tuple[str, ...]
) -> None:
    evidence = gather(printed(*events), after_record_id=100, instances=instances)
    assert (evidence.problem, evidence.about) == (SqlProblem.incomplete, tuple(f"MSSQLSERVER/{name}" for name in missing))
    assert not evidence.is_proof


def test_every_instance_must_be_there() -> None:
    both = (has("orders"), has("orders", instance="CRM"))
    one = gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, instances=both)
    assert (one.problem, one.about[0]) == (SqlProblem.incomplete, "MSSQL$CRM/master")
    crm = pairs(*SYSTEM, "orders", source="MSSQL$CRM", first=201)
    assert gather(printed(*FROZEN_AND_RESUMED, *crm), after_record_id=100, instances=both).is_proof


def test_an_instance_whose_service_is_stopped_writes_no_events_and_needs_none() -> None:
    stopped = has(instance="CRM", state=InstanceState.stopped)
    assert gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, instances=(*ORDERS, stopped)).is_proof
    assert not gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, instances=(stopped,)).is_proof


@pytest.mark.parametrize(
    "instances", [(), (has(state=InstanceState.unknown),), (*ORDERS, has(instance="CRM", state=InstanceState.unknown))]
)
def test_where_it_is_not_known_which_should_be_there_nothing_is_proved(instances: tuple[SqlInstance, ...]) -> None:
    events = printed(*FROZEN_AND_RESUMED, *pairs(*SYSTEM, source="MSSQL$CRM", first=201))
    evidence = gather(events, after_record_id=100, instances=instances)
    assert (evidence.problem, evidence.is_proof) == (SqlProblem.not_known, False)


@pytest.mark.parametrize("source", ["Acme Sync Service", "MSSQLSERVER2", "SQLSERVERAGENT", "MSSQL$", "MSSQL$MICROSOFT##WID", ""])
def test_the_events_of_another_program_are_not_sql_servers_word(source: str) -> None:
    evidence = gather(printed(*pairs(*SYSTEM, "orders", source=source)), after_record_id=100, instances=ORDERS)
    assert (evidence.problem, evidence.events) == (SqlProblem.no_events, ())


def test_the_events_of_another_program_beside_sql_servers_change_nothing() -> None:
    other = event(50_000, IO_FROZEN, "orders", "Acme Sync Service")
    assert gather(printed(*FROZEN_AND_RESUMED, other), after_record_id=100, instances=ORDERS).is_proof


def test_names_are_the_same_in_another_case() -> None:
    events = pairs("MASTER", "model", "msdb", "Orders", source="MSSQL$crm")
    assert gather(printed(*events), after_record_id=100, instances=(has("ORDERS", instance="CRM"),)).is_proof


# --- tied to the job ------------------------------------------------------------------------------


def test_events_from_before_the_job_prove_nothing() -> None:
    evidence = gather(printed(*FROZEN_AND_RESUMED), after_record_id=108)
    assert (evidence.problem, evidence.events) == (SqlProblem.no_events, ())


def test_half_of_a_pair_from_before_the_job_proves_nothing() -> None:
    assert gather(printed(*FROZEN_AND_RESUMED), after_record_id=101).about == ("MSSQLSERVER/master",)


def test_without_the_remembered_record_nothing_is_tied_to_the_job() -> None:
    assert sql_evidence.not_remembered().problem is SqlProblem.not_remembered


@pytest.mark.parametrize(
    "events",
    [
        (event(101, IO_FROZEN, "orders"),),
        (event(101, IO_RESUMED, "orders"),),
        (event(101, IO_RESUMED, "orders"), event(102, IO_FROZEN, "orders")),
        (event(101, IO_FROZEN, "orders"), event(102, IO_FROZEN, "orders"), event(103, IO_RESUMED, "orders")),
        (event(101, IO_FROZEN, "a"), event(102, IO_RESUMED, "b")),
        (event(101, IO_FROZEN, "a", "MSSQL$X"), event(102, IO_RESUMED, "a", "MSSQL$Y")),
        (event(101, IO_FROZEN, ""), event(102, IO_RESUMED, "")),
    ],
    ids=["only frozen", "only resumed", "resumed first", "frozen twice", "two databases", "two instances", "no name"],
)
def test_events_that_do_not_pair_up_prove_nothing(events: tuple[str, ...]) -> None:
    evidence = gather(printed(*events), after_record_id=100)
    assert evidence.problem is SqlProblem.unbalanced
    assert not evidence.is_proof


def test_events_may_come_in_any_order() -> None:
    """`/rd:true` prints the newest first."""
    assert gather(printed(*reversed(FROZEN_AND_RESUMED)), after_record_id=100).is_proof


@pytest.mark.parametrize("namespace", ["", "xmlns='http://example.org/other'", 'xmlns="x"'])
def test_the_namespace_does_not_matter(namespace: str) -> None:
    pair = (event(101, IO_FROZEN, "a", namespace=namespace), event(102, IO_RESUMED, "a", namespace=namespace))
    assert gather(printed(*pair), after_record_id=100).databases == ("a",)


def test_prefixed_elements_and_one_root_around_them_are_read() -> None:
    def prefixed(record: int, number: int) -> str:
        return (
            f"<e:Event xmlns:e='x'><e:System><e:Provider Name='MSSQLSERVER'/><e:EventRecordID>{record}</e:EventRecordID>"
            f"<e:EventID>{number}</e:EventID></e:System>"
            "<e:EventData><e:Data Name='db'>orders</e:Data></e:EventData></e:Event>"
        )

    whole = f"<?xml version='1.0'?><Events>{prefixed(101, IO_FROZEN)}{prefixed(102, IO_RESUMED)}</Events>".encode()
    assert gather(whole, after_record_id=100).databases == ("orders",)


def test_other_events_are_passed_over() -> None:
    noise = (event(205, 8194, "VSS"), event(206, 3198000, "x"))
    assert gather(printed(*FROZEN_AND_RESUMED, *noise), after_record_id=100).is_proof


def test_names_of_databases_in_an_oem_code_page_are_read() -> None:
    pair = (event(101, IO_FROZEN, "Aufträge"), event(102, IO_RESUMED, "Aufträge"))
    assert gather("\r\n".join(pair).encode("cp850"), after_record_id=100).databases == ("Aufträge",)


@pytest.mark.parametrize(
    "output",
    [
        printed(*FROZEN_AND_RESUMED)[:-3],
        printed(*FROZEN_AND_RESUMED) + b"<Event xmlns='x'><System>",
        printed(*FROZEN_AND_RESUMED) + b"<Eve",
        printed(*FROZEN_AND_RESUMED) + event(105, IO_FROZEN, "a & b").encode(),
        b"The specified channel could not be found.\r\n",
    ],
    ids=["cut", "another began", "cut tag", "not XML", "text"],
)
def test_output_that_is_not_whole_proves_nothing(output: bytes) -> None:
    assert gather(output, after_record_id=100).problem is SqlProblem.unreadable


def test_two_databases_whose_names_cannot_be_printed_are_not_called_unbalanced() -> None:
    """Windows prints a question mark for what the code page does not have, so two names may read alike."""
    events = pairs(*SYSTEM, "????", "????")
    evidence = gather(printed(*events), after_record_id=100, instances=(has("Счёт", "Люди"),))
    assert evidence.problem is SqlProblem.incomplete


def test_a_resumption_that_was_not_written_yet_is_waited_for_and_nothing_else() -> None:
    def paired(*events: str) -> SqlEvidence:
        return sql_evidence.paired(event_xml.read(printed(*events)).events)

    assert sql_evidence.is_waiting(paired(*pairs("a", "b")[:3]))
    assert not sql_evidence.is_waiting(paired(*pairs("a", "b")))
    assert not sql_evidence.is_waiting(paired(event(101, IO_RESUMED, "a"), event(102, IO_FROZEN, "b")))
    assert not sql_evidence.is_waiting(paired(event(101, IO_FROZEN, "a"), event(102, IO_FROZEN, "a")))


def test_a_document_type_is_not_read() -> None:
    bomb = "<Event><!DOCTYPE x [<!ENTITY a 'aaaa'>]><System/></Event>"
    assert gather(printed(*FROZEN_AND_RESUMED, bomb), after_record_id=100).problem is SqlProblem.unreadable


def test_no_output_is_no_event() -> None:
    assert gather(b"", after_record_id=100).problem is SqlProblem.no_events


@pytest.mark.parametrize(
    ("output", "expected"),
    [(printed(*FROZEN_AND_RESUMED), 108), (printed(event(7, 1, "x")), 7), (b"", None), (b"<Event><System/></Event>", None), (b"x", None)],
)
def test_the_record_to_remember_before_the_freeze(output: bytes, expected: int | None) -> None:
    assert newest_record_id(output) == expected


def test_the_evidence_as_it_stands_in_the_job() -> None:
    document = gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, instances=ORDERS).as_document()
    assert (document["is_proof"], document["problem"], document["databases"]) == (True, None, [*SYSTEM, "orders"])
    assert document["instances"] == [{"instance": "MSSQLSERVER", "state": "listed", "databases": [*SYSTEM, "orders"]}]
    assert document["events"][0] == {
        "record_id": 101,
        "event_id": 3197,
        "source": "MSSQLSERVER",
        "database": "master",
        "at": "2026-03-01T10:00:41.000000000Z",
    }


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([*FROZEN_AND_RESUMED, "<Event>", "</Event>", "<", "&"])).map("".join).map(str.encode)
)
def test_nothing_that_wevtutil_prints_raises(output: bytes) -> None:
    newest_record_id(output)
    gather(output, after_record_id=0).as_document()
