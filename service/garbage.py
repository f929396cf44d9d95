"""The collector of reference cycles, which looks at all objects again and again while many are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For a fraction of a second in which very many objects are made, and no cycles: the collector would take a third of the time.

    It stands still for all threads. Reference counts still free what is not used any more.
    """
    if not gc.isenabled():
        # Another thread does the same.
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
