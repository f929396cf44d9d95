"""Who waits in this process is called as soon as a row has changed."""

from service.db.bells import Bells


def test_a_bell_calls_all_who_listen_to_it_and_nobody_else() -> None:
    bells, heard = Bells(), []
    with (
        bells.listening("a", lambda: heard.append("first")),
        bells.listening("a", lambda: heard.append("second")),
        bells.listening("b", lambda: heard.append("other")),
    ):
        bells.ring("a")
    assert heard == ["first", "second"]


def test_who_has_gone_is_not_called() -> None:
    bells, heard = Bells(), []
    with bells.listening("a", lambda: heard.append("was here")):
        pass
    bells.ring("a")
    assert heard == []
