"""SQL Server's own events, tied to one job: proof only when every database was frozen and resumed after the remembered record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.sql_evidence import IO_FROZEN, IO_RESUMED, SqlProblem, gather, newest_record_id

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


FROZEN_AND_RESUMED = (
    event(101, IO_FROZEN, "master"),
    event(102, IO_FROZEN, "orders"),
    event(103, IO_RESUMED, "orders"),
    event(104, IO_RESUMED, "master"),
)


def test_both_events_of_every_database_are_proof() -> None:
    evidence = gather(printed(*FROZEN_AND_RESUMED), after_record_id=100)
    assert evidence.is_proof
    assert evidence.databases == ("master", "orders")
    assert "master, orders" in evidence.detail


def test_events_from_before_the_job_prove_nothing() -> None:
    evidence = gather(printed(*FROZEN_AND_RESUMED), after_record_id=104)
    assert (evidence.problem, evidence.events) == (SqlProblem.no_events, ())


def test_half_of_a_pair_from_before_the_job_proves_nothing() -> None:
    assert gather(printed(*FROZEN_AND_RESUMED), after_record_id=101).unbalanced == ("MSSQLSERVER/master",)


def test_without_the_remembered_record_nothing_is_tied_to_the_job() -> None:
    assert gather(printed(*FROZEN_AND_RESUMED), after_record_id=None).problem is SqlProblem.not_remembered


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
    assert gather(printed(*pair), after_record_id=100).is_proof


def test_prefixed_elements_and_one_root_around_them_are_read() -> None:
    def prefixed(record: int, number: int) -> str:
        return (
            f"<e:Event xmlns:e='x'><e:System><e:EventRecordID>{record}</e:EventRecordID><e:EventID>{number}</e:EventID></e:System>"
            "<e:EventData><e:Data Name='db'>orders</e:Data></e:EventData></e:Event>"
        )

    whole = f"<?xml version='1.0'?><Events>{prefixed(101, IO_FROZEN)}{prefixed(102, IO_RESUMED)}</Events>".encode()
    assert gather(whole, after_record_id=100).databases == ("orders",)
    assert gather(whole, after_record_id=100).is_proof


def test_other_events_are_passed_over() -> None:
    noise = (event(105, 8194, "VSS"), event(106, 3198000, "x"))
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


def test_output_that_is_known_to_be_cut_off_proves_nothing() -> None:
    assert gather(printed(*FROZEN_AND_RESUMED), after_record_id=100, truncated=True).problem is SqlProblem.unreadable


def test_a_document_type_is_not_read() -> None:
    bomb = "<Event><!DOCTYPE x [<!ENTITY a 'aaaa'>]><System/></Event>"
    assert gather(printed(*FROZEN_AND_RESUMED, bomb), after_record_id=100).problem is SqlProblem.unreadable


def test_no_output_is_no_event() -> None:
    assert gather(b"", after_record_id=100).problem is SqlProblem.no_events


@pytest.mark.parametrize(
    ("output", "expected"),
    [(printed(*FROZEN_AND_RESUMED), 104), (printed(event(7, 1, "x")), 7), (b"", None), (b"<Event><System/></Event>", None), (b"x", None)],
)
def test_the_record_to_remember_before_the_freeze(output: bytes, expected: int | None) -> None:
    assert newest_record_id(output) == expected


def test_the_evidence_as_it_stands_in_the_job() -> None:
    document = gather(printed(*FROZEN_AND_RESUMED), after_record_id=100).as_document()
    assert (document["is_proof"], document["problem"], document["databases"]) == (True, None, ["master", "orders"])
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
