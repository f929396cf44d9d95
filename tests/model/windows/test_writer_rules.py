"""What writers do to the verdict: data per class, with a reason, and a setting that beats it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.windows import well_known_writers
from service.model.windows.known_writers import KnownWriter
from service.model.windows.sql_evidence import IO_FROZEN, IO_RESUMED, SqlEvent, SqlEvidence, SqlProblem
from service.model.windows.vss_writers import WriterReport, parse
from service.model.windows.well_known_writers import EXCHANGE_FREEZE_LIMIT_MS, is_known, shortest_freeze_limit_ms, writer_class
from service.model.windows.writer_changes import compare
from service.model.windows.writer_rules import FROM_SETTING, WriterCeiling, WriterRules, WritersJudgement, as_documents, judge
from tests.model.windows.vssadmin_samples import (
    BITS,
    ESPERANTO,
    EXCHANGE,
    LANGUAGES,
    SQL,
    SYSTEM,
    TASKS,
    THIRD_PARTY,
    WMI,
    Identity,
    Language,
    english,
    output_of,
    well,
)

pytestmark = pytest.mark.windows

BEFORE = parse(english(*well(TASKS, SQL, BITS, THIRD_PARTY)))

PROOF = SqlEvidence(
    (SqlEvent(11, IO_FROZEN, "MSSQLSERVER", "orders"), SqlEvent(12, IO_RESUMED, "MSSQLSERVER", "orders")),
    problem=None,
)
NO_PROOF = SqlEvidence((), SqlProblem.no_events)


def with_one(who: Identity, state: int, error: str) -> WriterReport:
    others = [each for each in (TASKS, SQL, BITS, THIRD_PARTY) if each is not who]
    return parse(english(*well(*others), (who, state, error)))


def judged(after: WriterReport | None, sql: SqlEvidence | None = None, overrides: Mapping[str, str] | None = None) -> WritersJudgement:
    return judge(compare(BEFORE, after), sql=sql, rules=WriterRules.from_settings(overrides or {}))


def findings(judgement: WritersJudgement) -> list[tuple[str, str]]:
    return [(finding.code, finding.effect) for finding in judgement.findings]


# --- the rules of F§6.5 ---------------------------------------------------------------------------


def test_application_needs_every_writer_stable_without_error() -> None:
    judgement = judged(BEFORE)
    assert judgement.ceiling is WriterCeiling.application
    assert findings(judgement) == [("writers_healthy", "lifts")]


def test_a_newly_failed_writer_lowers_to_filesystem_with_the_reason() -> None:
    judgement = judged(with_one(THIRD_PARTY, 9, "Timed out"))
    assert judgement.ceiling is WriterCeiling.filesystem
    assert findings(judgement) == [("writer_newly_failed", "lowers")]
    detail = judgement.lowering[0].detail
    assert "Acme Ledger Writer" in detail
    assert "[9] failed_at_freeze" in detail
    assert writer_class(THIRD_PARTY[1]).reason in detail


@pytest.mark.parametrize("failure", [(7, "Timed out"), (1, "Retryable error"), (12, "Non-retryable error")])
def test_a_writer_that_failed_before_and_after_alike_is_no_evidence_that_it_took_part(failure: tuple[int, str]) -> None:
    before = parse(english(*well(TASKS), (WMI, *failure)))
    judgement = judge(compare(before, before))
    assert judgement.ceiling is WriterCeiling.application_unverified
    assert findings(judgement) == [("writer_failure_pre_existing", "lowers")]
    assert judgement.lowering[0].class_id == WMI[1]


def test_sql_servers_events_do_not_vouch_for_a_writer_that_failed_before_and_after_alike() -> None:
    before = parse(english(*well(TASKS), (SQL, 10, "Timed out")))
    assert judge(compare(before, before), sql=PROOF).ceiling is WriterCeiling.application_unverified


def test_a_failure_of_a_class_that_only_warns_is_a_note_and_all_writers_are_not_called_healthy() -> None:
    before = parse(english(*well(TASKS), (BITS, 7, "Timed out")))
    judgement = judge(compare(before, before))
    assert judgement.ceiling is WriterCeiling.application
    assert findings(judgement) == [("other_writers_healthy", "lifts"), ("writer_failure_pre_existing", "notes")]


def test_a_no_error_that_is_only_inferred_never_lifts_to_application() -> None:
    report = parse(output_of(ESPERANTO, [(who, 1, ESPERANTO.no_error) for who in (TASKS, SYSTEM, WMI, SQL)]))
    assert report.is_healthy
    judgement = judge(compare(report, report))
    assert judgement.ceiling is WriterCeiling.application_unverified
    assert findings(judgement) == [("writer_state_not_understood", "lowers")]


# --- what earlier jobs saw ------------------------------------------------------------------------

SEEN = "2026-11-01T10:00:00.000000Z"


def known(who: Identity) -> KnownWriter:
    return KnownWriter(who[0], who[1], 1, SEEN, SEEN)


def test_a_writer_that_earlier_jobs_saw_and_that_is_in_neither_list_costs_application() -> None:
    judgement = judge(compare(BEFORE, BEFORE), missing=[known(EXCHANGE)])
    assert judgement.ceiling is WriterCeiling.application_unverified
    assert findings(judgement) == [("writer_missing", "lowers")]
    assert SEEN in judgement.lowering[0].detail


def test_the_setting_decides_about_a_missing_writer_too() -> None:
    judgement = judge(compare(BEFORE, BEFORE), missing=[known(EXCHANGE)], rules=WriterRules.from_settings({EXCHANGE[1]: "ignored"}))
    assert judgement.ceiling is WriterCeiling.application
    assert ("writer_missing", "notes") in findings(judgement)


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (None, "writers_unavailable"),
        (parse(b""), "writers_unavailable"),
        (parse(b"Sorry?\r\n"), "writers_unavailable"),
        (parse(english(*well(TASKS, SQL, BITS, THIRD_PARTY)), truncated=True), "writers_unavailable"),
        (with_one(SQL, 5, "No error"), "writers_not_settled"),
        (with_one(SQL, 0, "No error"), "writer_state_not_understood"),
        (parse(english(*well(TASKS, BITS, THIRD_PARTY))), "writer_vanished"),
        (parse(english(*well(TASKS, SQL, BITS, THIRD_PARTY, WMI))), "writer_appeared"),
    ],
)
def test_what_is_not_known_lowers_to_unverified(after: WriterReport | None, code: str) -> None:
    judgement = judged(after)
    assert judgement.ceiling is WriterCeiling.application_unverified
    assert (code, "lowers") in findings(judgement)


RESTARTED = (SQL[0], SQL[1], THIRD_PARTY[2])


def test_a_writer_that_was_started_anew_has_forgotten_the_freeze() -> None:
    judgement = judge(compare(parse(english(*well(SQL))), parse(english(*well(RESTARTED)))))
    assert judgement.ceiling is WriterCeiling.application_unverified
    assert ("writer_restarted", "lowers") in findings(judgement)


def test_the_reason_why_there_is_no_list_is_told() -> None:
    why = "so it is, for a reason of its own"
    assert why in judge(compare(BEFORE, None), unavailable=why).lowering[0].detail


def test_a_failed_writer_in_a_list_that_is_cut_off_counts_all_the_same() -> None:
    cut = parse(english(*well(TASKS), (SQL, 9, "Timed out")), truncated=True)
    assert judged(cut).ceiling is WriterCeiling.filesystem


def test_without_a_list_from_before_a_healthy_one_is_enough() -> None:
    judgement = judge(compare(None, BEFORE))
    assert judgement.ceiling is WriterCeiling.application
    assert ("writers_not_comparable", "notes") in findings(judgement)


def test_a_text_that_changed_its_meaning_is_not_believed() -> None:
    before, after = (parse(output_of(ESPERANTO, [(who, 1, text) for who in (TASKS, SYSTEM, SQL)])) for text in ("Neniu", "Eraro"))
    assert judge(compare(before, after)).ceiling is WriterCeiling.application_unverified


# --- data per class -------------------------------------------------------------------------------


def test_sql_servers_aftermath_lowers_without_positive_evidence() -> None:
    for sql in (None, NO_PROOF):
        judgement = judged(with_one(SQL, 10, "Timed out"), sql)
        assert judgement.ceiling is WriterCeiling.filesystem
        assert all(str(event_id) in judgement.lowering[0].detail for event_id in (IO_FROZEN, IO_RESUMED))


def test_positive_evidence_of_this_job_outweighs_sql_servers_aftermath() -> None:
    judgement = judged(with_one(SQL, 10, "Timed out"), PROOF)
    assert judgement.ceiling is WriterCeiling.application
    assert findings(judgement) == [("other_writers_healthy", "lifts"), ("writer_failure_outweighed", "notes")]
    assert "orders" in judgement.findings[1].detail


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_the_aftermath_is_known_in_the_languages_that_are_known(language: Language) -> None:
    before = parse(output_of(language, [(who, 1, language.no_error) for who in (TASKS, SYSTEM, WMI, SQL)]))
    healthy = [(who, 1, language.no_error) for who in (TASKS, SYSTEM, WMI)]
    after = parse(output_of(language, [*healthy, (SQL, 10, language.timed_out)]))
    expected = WriterCeiling.filesystem if language is ESPERANTO else WriterCeiling.application
    assert judge(compare(before, after), sql=PROOF).ceiling is expected


@pytest.mark.parametrize(("state", "error"), [(9, "Timed out"), (10, "Non-retryable error"), (1, "Timed out")])
def test_positive_evidence_outweighs_nothing_else(state: int, error: str) -> None:
    assert judged(with_one(SQL, state, error), PROOF).ceiling is WriterCeiling.filesystem


def test_positive_evidence_of_sql_server_says_nothing_of_another_writer() -> None:
    assert judged(with_one(THIRD_PARTY, 10, "Timed out"), PROOF).ceiling is WriterCeiling.filesystem


def test_a_writer_that_holds_nothing_to_restore_warns() -> None:
    judgement = judged(with_one(BITS, 9, "Timed out"))
    assert judgement.ceiling is WriterCeiling.application
    assert ("writer_newly_failed", "notes") in findings(judgement)


def test_a_service_that_stops_by_itself_may_be_missing() -> None:
    judgement = judged(parse(english(*well(TASKS, SQL, THIRD_PARTY))))
    assert judgement.ceiling is WriterCeiling.application
    assert ("writer_vanished", "notes") in findings(judgement)


# --- the setting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "code"), [("warns", "writer_newly_failed"), ("ignored", "writer_ignored")])
def test_a_setting_takes_the_weight_from_a_class(effect: str, code: str) -> None:
    judgement = judged(with_one(THIRD_PARTY, 9, "Timed out"), overrides={THIRD_PARTY[1]: effect})
    assert judgement.ceiling is WriterCeiling.application
    assert (code, "notes") in findings(judgement)
    assert FROM_SETTING in judgement.findings[-1].detail


def test_a_setting_gives_weight_to_a_class() -> None:
    assert judged(with_one(BITS, 9, "Timed out"), overrides={BITS[1]: "lowers"}).ceiling is WriterCeiling.filesystem


def test_a_setting_may_name_a_class_in_any_way() -> None:
    rules = WriterRules.from_settings({"{11111111-2222-4333-8444-555555555555}".upper(): "ignored"})
    assert rules.effect_of(THIRD_PARTY[1]) == "ignored"


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="sometimes"):
        WriterRules.from_settings({SQL[1]: "sometimes"})


# --- the table ------------------------------------------------------------------------------------


def test_trap_22_exchange_shortens_the_time_that_applications_stay_frozen() -> None:
    assert shortest_freeze_limit_ms(frozenset({SQL[1], EXCHANGE[1].upper()})) == EXCHANGE_FREEZE_LIMIT_MS
    assert shortest_freeze_limit_ms(frozenset({SQL[1]})) == 60_000
    assert shortest_freeze_limit_ms(frozenset()) == 60_000


def test_a_class_is_found_by_its_id_in_any_case() -> None:
    assert writer_class(SQL[1].upper()).name == "SqlServerWriter"
    assert is_known(SQL[1].upper())
    assert not is_known(THIRD_PARTY[1])


def test_every_class_is_listed_once() -> None:
    ids = [known.class_id for known in well_known_writers._CLASSES]
    assert sorted(set(ids)) == sorted(ids)
    assert [known for known in ids if known != known.lower()] == []


def test_the_writers_as_they_stand_in_the_job() -> None:
    failed, well_again = as_documents(compare(parse(english(*well(SQL, TASKS))), parse(english((SQL, 9, "Timed out"), *well(TASKS)))))
    assert (failed["name"], failed["newly_failed"], failed["change"]) == ("SqlServerWriter", True, "newly_failed")
    assert (failed["before"]["state"], failed["after"]["state_name"]) == (1, "failed_at_freeze")
    assert (well_again["newly_failed"], well_again["class_id"], well_again["instance_id"]) == (False, TASKS[1], TASKS[2])


# --- fuzzed ---------------------------------------------------------------------------------------

lists = st.lists(
    st.tuples(
        st.sampled_from([TASKS, SYSTEM, SQL, RESTARTED, BITS, THIRD_PARTY]),
        st.integers(0, 17),
        st.sampled_from(["No error", "Timed out", "Retryable error", "Huh"]),
    ),
    max_size=8,
)
reports = st.none() | st.builds(lambda listed, cut: parse(english(*listed), truncated=cut), lists, st.booleans())


@given(reports, reports, st.sampled_from([None, PROOF, NO_PROOF]))
def test_application_is_never_reached_over_a_writer_that_is_not_well(
    before: WriterReport | None, after: WriterReport | None, sql: SqlEvidence | None
) -> None:
    judgement = judge(compare(before, after), sql=sql)
    if judgement.ceiling is not WriterCeiling.application:
        assert judgement.lowering
        return
    assert after is not None
    assert after.problem is None
    old = {(writer.class_id, writer.instance_id, writer.state, writer.last_error) for writer in (before.writers if before else ())}
    for writer in after.writers:
        is_old = (writer.class_id, writer.instance_id, writer.state, writer.last_error) in old
        is_outweighed = sql is PROOF and (writer.name, writer.state, writer.last_error) == ("SqlServerWriter", 10, "Timed out")
        assert writer.is_healthy or is_old or is_outweighed or writer.name == "BITS Writer"
