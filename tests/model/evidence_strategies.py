"""Evidence of every kind, possible or not: what a guest, an agent and a clock may make of a window."""

from hypothesis import strategies as st

from service.model.timing import WindowInstants
from service.model.verdict import Evidence, HookState
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord

instants = st.none() | st.integers(min_value=0, max_value=10_000).map(lambda ms: ms * 1_000_000)
counts = st.none() | st.integers(min_value=-2, max_value=80)
texts = st.none() | st.text(max_size=20)
answers = st.none() | st.booleans()


def in_order(times: list[int]) -> WindowInstants:
    return WindowInstants(*sorted(times))


windows_in_time = st.lists(st.integers(0, 10_000_000_000), min_size=6, max_size=6).map(in_order)

windows = st.builds(
    WindowRecord,
    instants=st.builds(WindowInstants, instants, instants, instants, instants, instants, instants) | windows_in_time,
    freeze=st.builds(FreezeReply, st.sampled_from(FreezeOutcome), count=counts, message=texts),
    thaw=st.builds(ThawReply, st.sampled_from(ThawOutcome), count=counts, message=texts, attempts=st.integers(0, 5)),
    point_error=texts,
    point_was_requested=st.booleans(),
    watchdog_fired=st.booleans(),
    frozen_before_thaw=answers,
    frozen_afterwards=answers,
)

evidence = st.builds(
    Evidence,
    domain_was_running=st.booleans(),
    point_taken=st.booleans(),
    window=windows,
    hold_limit_ms=st.floats(0, 60_000),
    hook=st.sampled_from(HookState),
    shut_off_cleanly=answers,
    expected_filesystems=st.none() | st.integers(0, 5),
    unfreezable_filesystems=st.lists(st.sampled_from(["/boot/efi", "/media"]), max_size=2).map(tuple),
)

# Most random evidence is a crash; this is of windows that nearly held.
nearly_held = st.builds(
    Evidence,
    domain_was_running=st.just(True),
    point_taken=st.just(True),
    window=st.builds(
        WindowRecord,
        instants=windows_in_time,
        freeze=st.just(FreezeReply(FreezeOutcome.frozen, count=2)),
        thaw=st.sampled_from([ThawReply(ThawOutcome.completed, count=2), ThawReply(ThawOutcome.hook_failed, message="failed")]),
        point_was_requested=st.just(True),
        watchdog_fired=st.booleans(),
        frozen_before_thaw=answers,
        frozen_afterwards=answers,
    ),
    hold_limit_ms=st.sampled_from([30_000.0, 5_000.0]),
    hook=st.sampled_from(HookState),
    expected_filesystems=st.sampled_from([None, 1, 2]),
)

any_evidence = evidence | nearly_held
