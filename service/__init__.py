"""Stillpoint: backups of running KVM guests that can be trusted."""

from functools import cache

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: the keeper of the thaw guards never asks, and stays 3 MB smaller."""
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stillpoint")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
