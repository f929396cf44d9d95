"""`vssadmin list writers` is read by its shape, in any language, and never called healthy when it cannot be read."""

import base64
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows.vss_writers import MAX_BYTES, STATE_NAMES, Writer, WriterReport, WritersProblem, parse, settled
from service.model.windows.writer_texts import WriterError
from tests.model.windows.vssadmin_samples import (
    BITS,
    ENGLISH,
    ESPERANTO,
    JAPANESE,
    LANGUAGES,
    POLISH,
    PUBLISHED_FAILED_AT_FREEZE,
    PUBLISHED_GERMAN_BLOCK,
    REGISTRY,
    SQL,
    SYSTEM,
    TASKS,
    THIRD_PARTY,
    WMI,
    Language,
    block,
    english,
    output_of,
    text_of,
    well,
)

pytestmark = pytest.mark.windows


def states(report: WriterReport) -> list[tuple[str, int, bool | None]]:
    return [(writer.name, writer.state, writer.failed) for writer in report.writers]


# --- published texts ------------------------------------------------------------------------------


def test_the_published_english_text_of_a_writer_that_failed_at_freeze() -> None:
    report = parse(PUBLISHED_FAILED_AT_FREEZE)
    assert report.problem is None
    assert report.writers == (
        Writer(*TASKS, 1, "No error", False),
        Writer(*SQL, 9, "Timed out", True),
    )
    assert [writer.state_name for writer in report.writers] == ["stable", "failed_at_freeze"]
    assert report.writers[1].error is WriterError.timed_out
    assert not report.is_healthy


def test_the_published_german_block_with_double_quotes() -> None:
    report = parse(PUBLISHED_GERMAN_BLOCK)
    assert report.problem is None
    assert states(report) == [("SqlServerWriter", 8, True)]
    assert report.writers[0].error is WriterError.retryable


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_trap_15_a_list_in_any_language_and_code_page(language: Language) -> None:
    healthy = [(who, 1, language.no_error) for who in (TASKS, SYSTEM, REGISTRY)]
    report = parse(output_of(language, [*healthy, (SQL, 9, language.timed_out), (WMI, 5, language.no_error)]))
    assert report.problem is None
    assert states(report) == [
        ("Task Scheduler Writer", 1, False),
        ("System Writer", 1, False),
        ("Registry Writer", 1, False),
        ("SqlServerWriter", 9, True),
        ("WMI Writer", 5, False),
    ]
    assert [writer.class_id for writer in report.writers] == [who[1] for who in (TASKS, SYSTEM, REGISTRY, SQL, WMI)]
    assert [writer.instance_id for writer in report.writers] == [who[2] for who in (TASKS, SYSTEM, REGISTRY, SQL, WMI)]


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_the_text_reads_as_the_guest_wrote_it(language: Language) -> None:
    listed = [(who, 1, language.no_error) for who in (TASKS, SYSTEM, REGISTRY)] + [(SQL, 9, language.timed_out)]
    assert parse(output_of(language, listed)).raw_text == text_of(language, listed)


@pytest.mark.parametrize("number", range(16))
def test_every_state_number_has_its_name(number: int) -> None:
    (writer,) = parse(english((SQL, number, "No error"))).writers
    assert (writer.state, writer.state_name) == (number, STATE_NAMES[number])
    assert writer.failed is ({0: None, 1: False, 2: False, 3: False, 4: False, 5: False}.get(number, True))


def test_a_state_number_that_does_not_exist_is_not_judged() -> None:
    (writer,) = parse(english((SQL, 77, "No error"))).writers
    assert (writer.state, writer.state_name, writer.failed) == (77, "unrecognised", None)


def test_a_preamble_about_waiting_for_responses_is_not_a_writer() -> None:
    banner, rest = english(*well(TASKS)).split(b"\r\n\r\n", 1)
    waiting = b"Waiting for responses.\r\nThese may be delayed if a shadow copy is being prepared.\r\n"
    assert parse(banner + b"\r\n\r\n" + waiting + b"\r\n" + rest).writers == parse(english(*well(TASKS))).writers


def test_line_ends_may_be_of_any_kind() -> None:
    crlf = english(*well(TASKS, SQL))
    for end in (b"\n", b"\r\r\n"):
        report = parse(crlf.replace(b"\r\n", end))
        assert (report.writers, report.problem) == (parse(crlf).writers, None)


def test_a_name_may_hold_quotes_brackets_and_colons() -> None:
    odd = ("Bob's [1] writer: 'a'", SQL[1], SQL[2])
    assert parse(english((odd, 1, "No error"))).writers[0].name == "Bob's [1] writer: 'a'"


# --- what the last error means --------------------------------------------------------------------


def test_trap_15_stable_with_an_error_is_failed() -> None:
    report = parse(english(*well(TASKS, SYSTEM), (SQL, 1, "Retryable error")))
    assert states(report)[-1] == ("SqlServerWriter", 1, True)


def test_an_error_that_nobody_knows_is_an_error_beside_a_text_that_means_none() -> None:
    report = parse(english(*well(TASKS), (SQL, 1, "The flux compensator is cold")))
    assert [writer.failed for writer in report.writers] == [False, True]


def test_no_error_in_an_unknown_language_is_what_most_stable_writers_share() -> None:
    listed = [(who, 1, "Neniu eraro") for who in (TASKS, SYSTEM, WMI)] + [(SQL, 1, "Reprovebla eraro")]
    report = parse(output_of(ESPERANTO, listed))
    assert [writer.failed for writer in report.writers] == [False, False, False, True]
    assert (report.no_error_text, report.no_error_is_inferred) == ("neniu eraro", True)


def reads(language: Language, text: str, code_page: str) -> WriterReport:
    listed = [(who, 1, text) for who in (TASKS, SYSTEM, WMI)] + [(SQL, 10, "?")]
    return parse(text_of(language, listed).encode(code_page))


@pytest.mark.parametrize("text", ["Nie ma błędów.", "Nie ma błędów", "NIE MA BŁĘDÓW.", "nie\u00a0ma  błędów .", "Nie ma błędów. "])
@pytest.mark.parametrize("code_page", ["cp852", "utf-8"])
def test_the_polish_no_error_is_known_however_it_is_spaced_and_ended(text: str, code_page: str) -> None:
    report = reads(replace(POLISH, states={1: "Stabilne", 9: "Niepowodzenie"}), text, code_page)
    assert (report.no_error_text, report.no_error_is_inferred) == ("nie ma błędów", False)
    assert [writer.failed for writer in report.writers] == [False, False, False, True]
    assert report.encoding == code_page


@pytest.mark.parametrize(
    ("text", "code_page"),
    [
        ("No error.", "cp437"),
        ("KEIN FEHLER", "cp850"),
        ("Kein\u00a0Fehler.", "cp850"),
        ("Aucune erreur.", "cp850"),
        ("Aucune\u00a0erreur", "cp1252"),
        ("Нет ошибок.", "cp866"),
        ("Žádná chyba.", "cp852"),
        ("エラーなし。", "cp932"),
        ("ｴﾗｰなし｡", "cp932"),
        ("没有错误。", "cp936"),
    ],
)
def test_a_known_no_error_is_known_with_another_end_width_case_or_space(text: str, code_page: str) -> None:
    report = reads(ENGLISH, text, code_page)
    assert [writer.failed for writer in report.writers] == [False, False, False, True]
    assert not report.no_error_is_inferred


@pytest.mark.parametrize("texts", [["Neniu eraro"] * 2, ["Neniu eraro", "Neniu eraro", "Io alia", "Tria"], ["Io", "Alia", "Tria"]])
def test_a_text_that_too_few_share_is_not_judged(texts: list[str]) -> None:
    listed = [(who, 1, text) for who, text in zip((TASKS, SYSTEM, WMI, SQL), texts, strict=False)]
    report = parse(output_of(ESPERANTO, listed))
    assert {writer.failed for writer in report.writers} == {None}
    assert not report.is_healthy


def test_one_writer_with_many_instances_is_no_majority() -> None:
    many = [((SQL[0], SQL[1], f"{number:08d}-0000-4000-8000-000000000000"), 1, "Eraro") for number in range(9)]
    assert {writer.failed for writer in parse(output_of(ESPERANTO, many)).writers} == {None}


def test_an_error_that_all_stable_writers_share_is_still_an_error() -> None:
    listed = [(who, 1, "Retryable error") for who in (TASKS, SYSTEM, WMI, SQL)]
    assert {writer.failed for writer in parse(english(*listed)).writers} == {True}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Timed out", WriterError.timed_out),
        ("timed  OUT.", WriterError.timed_out),
        ("Délai dépassé", WriterError.timed_out),
        ("Non-retryable error", WriterError.non_retryable),
        ("Out of resources", WriterError.out_of_resources),
        ("Inconsistent shadow copy", WriterError.inconsistent_snapshot),
        ("0x800423f2", WriterError.timed_out),
        ("FAILED(0x800423F4)", WriterError.non_retryable),
        ("0x8000ffff", WriterError.unexpected),
        ("No error", None),
        ("Neniu eraro", None),
    ],
)
def test_the_kind_of_an_error(text: str, error: WriterError | None) -> None:
    assert Writer(*SQL, 1, text, None).error is error


def test_a_missing_last_error_text_is_not_judged() -> None:
    (writer,) = parse(english((SQL, 1, ""))).writers
    assert (writer.last_error, writer.failed) == ("", None)


# --- settled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", range(2, 6))
def test_a_writer_between_two_states_is_not_settled(state: int) -> None:
    assert not settled(parse(english(*well(TASKS), (SQL, state, "No error"))))


@pytest.mark.parametrize("state", [0, 1, 6, 10, 15])
def test_a_writer_at_rest_is_settled(state: int) -> None:
    assert settled(parse(english(*well(TASKS), (SQL, state, "No error"))))


# --- what cannot be read --------------------------------------------------------------------------

WHOLE = english(*well(TASKS, SYSTEM), (SQL, 9, "Timed out"))
BETWEEN_WRITERS = re.compile(rb"No error\r\n(\r\n)?$")


def test_output_cut_off_anywhere_in_a_writer_is_never_healthy() -> None:
    cuts = [WHOLE[:length] for length in range(WHOLE.index(b"Writer"), len(WHOLE) - 2)]
    in_a_writer = [cut for cut in cuts if not BETWEEN_WRITERS.search(cut)]
    assert [cut for cut in in_a_writer if parse(cut).problem is None or parse(cut).is_healthy] == []


def test_output_cut_off_right_between_two_writers_is_a_shorter_list() -> None:
    """Nothing in it shows the cut: that takes the list from before the freeze."""
    assert states(parse(WHOLE[: WHOLE.index(b"Writer name: 'Sql")])) == [("Task Scheduler Writer", 1, False), ("System Writer", 1, False)]


def test_output_that_is_known_to_be_cut_off_is_so_however_clean_its_end() -> None:
    report = parse(english(*well(TASKS, SYSTEM)), truncated=True)
    assert report.problem is WritersProblem.cut_off
    assert not report.is_healthy


def test_a_last_line_that_may_go_on_says_nothing_about_its_writer() -> None:
    cut = english(*well(TASKS, SYSTEM)).removesuffix(b"\r\n\r\n")
    assert states(parse(cut)) == [("Task Scheduler Writer", 1, False)]


def test_output_in_the_middle_of_a_double_byte_character_is_cut_off() -> None:
    whole = output_of(JAPANESE, [(who, 1, "エラーなし") for who in (TASKS, SYSTEM)])
    report = parse(whole[:-5])
    assert report.problem is WritersProblem.cut_off
    assert states(report) == [("Task Scheduler Writer", 1, False)]


@pytest.mark.parametrize("more", [block(ENGLISH, SYSTEM, 1, "No error").encode(), b"\n"])
def test_a_list_that_never_ends_is_cut_off(more: bytes) -> None:
    report = parse(english(*well(TASKS)) + more * MAX_BYTES)
    assert (report.problem, len(report.raw)) == (WritersProblem.cut_off, MAX_BYTES)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"\r\n",
        b"vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool\r\n(C) Copyright 2001-2013 Microsoft Corp.\r\n\r\n",
        b"vssadmin 1.1 - Volume Shadow Copy Service administrative command-line tool\r\n(C) Copyright 2001-2013 Microsoft Corp.\r\n\r\n"
        b"Error: A Volume Shadow Copy Service component encountered an unexpected error.\r\n"
        b"Check the Application event log for more information.\r\n",
    ],
    ids=["nothing", "blank", "banner", "error"],
)
def test_no_writer_at_all_is_not_healthy(output: bytes) -> None:
    report = parse(output)
    assert (report.writers, report.problem) == ((), WritersProblem.no_writers)
    assert not report.is_healthy


def test_garbage_is_unparsable_and_kept() -> None:
    garbage = bytes(range(256))
    report = parse(garbage)
    assert (report.writers, report.problem, report.raw) == ((), WritersProblem.unparsable, garbage)


def test_a_writer_in_a_shape_that_is_not_known_spoils_the_list() -> None:
    swapped = english(*well(TASKS, SYSTEM, SQL)).replace(b"   State: [1] Stable\r\n", b"", 1)
    report = parse(swapped)
    assert report.problem is WritersProblem.unparsable
    assert [writer.name for writer in report.writers] == ["System Writer", "SqlServerWriter"]


def test_the_bytes_are_kept_whatever_the_text() -> None:
    output = output_of(JAPANESE, [(TASKS, 1, "エラーなし")]) + b"\x00\xff\r\n"
    document = parse(output).as_document()
    assert base64.b64decode(document["raw_base64"]) == output
    # PostgreSQL refuses NUL in text.
    assert "\x00" not in document["raw_text"]


def test_a_writers_document() -> None:
    (writer,) = parse(english((SQL, 9, "Timed out"))).writers
    assert writer.as_document() == {
        "state": 9,
        "state_name": "failed_at_freeze",
        "last_error": "Timed out",
        "error": "timed_out",
        "failed": True,
    }


# --- fuzzed ---------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        b"Writer name: 'X'", b"   Writer Id: {a65faa63-5ea8-4ebc-9dbd-a0c4db26912a}", b"   State: [1] Stable", b"   State: [9",
        b"   Last error: No error", b"   Last error", b"\r\n", b"\n", b"\r", b"", b"{", b"[99999]", b"vssadmin", b"\x81\x46", b"'", b":",
    ]
)  # fmt: skip


@given(st.binary(max_size=400) | st.lists(pieces | st.binary(max_size=6), max_size=60).map(b"".join), st.booleans())
def test_nothing_that_a_guest_prints_raises(output: bytes, truncated: bool) -> None:
    report = parse(output, truncated=truncated)
    settled(report)
    document = report.as_document()
    assert base64.b64decode(document["raw_base64"]) == output
    assert report.writers or not report.is_healthy or output == b""
    report.raw_text.encode("utf-8")


@given(
    st.sampled_from(sorted(LANGUAGES)),
    st.lists(st.tuples(st.sampled_from([TASKS, SYSTEM, SQL, BITS, THIRD_PARTY]), st.integers(0, 15)), min_size=1, max_size=30),
)
def test_whatever_is_listed_is_read_back(name: str, listed: list[tuple[tuple[str, str, str], int]]) -> None:
    language = LANGUAGES[name]
    report = parse(output_of(language, [(who, state, language.no_error) for who, state in listed]))
    assert report.problem is None
    assert [(writer.name, writer.state) for writer in report.writers] == [(who[0], state) for who, state in listed]
    assert all(writer.failed for writer in report.writers if writer.state >= 6)


@given(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=8))
def test_damage_in_the_middle_never_heals_a_failed_writer(at: int, damage: bytes) -> None:
    report = parse(WHOLE[:at] + damage + WHOLE[at:])
    failed = [writer for writer in report.writers if writer.name == "SqlServerWriter" and writer.is_healthy]
    assert not failed
    assert not report.is_healthy or not re.search(rb"\[9\]", report.raw)
