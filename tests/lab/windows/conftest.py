"""The guests of this package's tests."""

from tests.lab.windows.fixtures import make_windows_guest, windows_guest, windows_module_guest

__all__ = ["make_windows_guest", "windows_guest", "windows_module_guest"]
