"""Stillpoint: backups of running KVM guests that can be trusted."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("stillpoint")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
