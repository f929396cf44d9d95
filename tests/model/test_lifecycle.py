"""The moves between the states of a job."""

from service.model.lifecycle import FINAL_STATES, MOVES, JobState, may_move


def test_an_ended_job_never_moves_again() -> None:
    assert {state for state in JobState if not MOVES[state]} == set(FINAL_STATES)


def test_a_queued_job_can_start_or_be_cancelled() -> None:
    assert {state for state in JobState if may_move(JobState.queued, state)} == {JobState.running, JobState.cancelled}


def test_a_running_job_is_never_queued_again_without_recovery() -> None:
    assert not may_move(JobState.running, JobState.queued)
    assert may_move(JobState.running, JobState.interrupted)
    assert may_move(JobState.interrupted, JobState.queued)


def test_an_interrupted_job_cannot_have_succeeded() -> None:
    assert not may_move(JobState.interrupted, JobState.succeeded)
