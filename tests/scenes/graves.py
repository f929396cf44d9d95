"""Calls of a service's own functions in which a worker dies."""

import threading
from collections.abc import Callable
from typing import Any

import pytest


class Grave:
    """The first call of a function never comes back. Later calls are of other workers, and work."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        *,
        after: bool,
        step: str | None = None,
        reached: threading.Event | None = None,
    ) -> None:
        self.reached = reached or threading.Event()
        self._real: Callable[..., Any] = getattr(owner, name)
        self._after = after
        self._step = step
        monkeypatch.setattr(owner, name, lambda *arguments, **more: self._call(*arguments, **more))  # noqa: PLW0108 - a function becomes a method of its owner

    def _call(self, *arguments: Any, **more: Any) -> Any:
        if self.reached.is_set() or (self._step is not None and self._step not in arguments):
            return self._real(*arguments, **more)
        if self._after:
            self._real(*arguments, **more)
        self.reached.set()
        threading.Event().wait()
        return None
