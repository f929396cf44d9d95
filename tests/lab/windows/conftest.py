"""The guests of this package's tests, and shorthand for talking to a simulated agent."""

from tests.lab.windows.fixtures import make_windows_guest, windows_guest, windows_module_guest

__all__ = ["make_windows_guest", "windows_guest", "windows_module_guest"]
