import pytest

from service.model.impact import BlockTimes, Felt, ImpactRecord, ImpactStage, Latency, felt_between

MS = 1_000_000


def _times(writes: int, write_ms: float, flushes: int = 0, flush_ms: float = 0.0) -> BlockTimes:
    return BlockTimes(writes=writes, write_ns_total=int(write_ms * MS), flushes=flushes, flush_ns_total=int(flush_ms * MS))


def test_the_mean_between_two_looks() -> None:
    felt = felt_between(_times(10, 5, 4, 8), _times(20, 25, 8, 28))
    assert (felt.write.mean_ms, felt.flush.mean_ms, felt.worst_ms) == (2.0, 5.0, 5.0)


def test_a_guest_that_does_nothing_has_no_latency() -> None:
    felt = felt_between(_times(10, 5), _times(10, 5))
    assert (felt.write.count, felt.write.mean_ms, felt.worst_ms) == (0, None, None)


@pytest.mark.parametrize("later", [BlockTimes(), _times(3, 9), _times(20, 1)])
def test_counters_that_are_missing_or_went_back_measure_nothing(later: BlockTimes) -> None:
    assert felt_between(_times(10, 5), later).write == Latency()


def test_stages_are_kept_apart_and_the_worst_look_is_kept() -> None:
    record = ImpactRecord(limit_ms=20)
    record.add(ImpactStage.before, "vda", Felt(Latency(10, 10 * MS), Latency(0, 0)))
    record.add(ImpactStage.copy, "vda", Felt(Latency(10, 20 * MS), Latency(2, 8 * MS)))
    record.add(ImpactStage.copy, "vda", Felt(Latency(30, 300 * MS), Latency(2, 4 * MS)))
    stages = record.as_document()["stages"]
    assert stages["before"]["vda"] == {
        "writes": 10,
        "write_ms": 1.0,
        "worst_write_ms": 1.0,
        "flushes": 0,
        "flush_ms": None,
        "worst_flush_ms": None,
    }
    assert stages["copy"]["vda"] == {
        "writes": 40,
        "write_ms": 8.0,
        "worst_write_ms": 10.0,
        "flushes": 4,
        "flush_ms": 3.0,
        "worst_flush_ms": 4.0,
    }


def test_what_was_not_measured_is_null() -> None:
    record = ImpactRecord(limit_ms=None)
    record.add(ImpactStage.copy, "vda", Felt())
    document = record.as_document()
    assert (document["limit_ms"], document["stages"]["before"], document["least_free_bytes"]) == (None, None, None)
    assert set(document["stages"]["copy"]["vda"].values()) == {None}


def test_a_second_attempt_adds_to_the_figures_of_the_first() -> None:
    first, both = ImpactRecord(limit_ms=20), None
    first.add(ImpactStage.before, "vda", Felt(Latency(10, 10 * MS), Latency(1, MS)))
    first.add(ImpactStage.copy, "vda", Felt(Latency(10, 40 * MS), Latency()))
    first.was_paused_by_error, first.slowed_s = True, 3.0
    first.note_free_bytes(7)
    both = ImpactRecord(20, first.as_document())
    both.add(ImpactStage.copy, "vda", Felt(Latency(30, 30 * MS), Latency(1, 2 * MS)))
    both.note_free_bytes(9)
    document = both.as_document()
    assert document["stages"]["before"] == first.as_document()["stages"]["before"]
    assert (document["stages"]["copy"]["vda"]["write_ms"], document["stages"]["copy"]["vda"]["worst_write_ms"]) == (1.75, 4.0)
    assert (document["paused_by_error"], document["slowed_s"], document["least_free_bytes"]) == (True, 3.0, 7)
