"""How libvirt words what the agent did: versions differ in the codes of its errors and in the text around the agent's own."""

from enum import StrEnum


class Dialect(StrEnum):
    #: Debian 12: an agent's error is an internal error, and every silence has one code.
    libvirt_9_0 = "libvirt-9.0"
    #: Debian 13; since 11.2 an agent's error and a lost answer have codes of their own.
    libvirt_11_3 = "libvirt-11.3"


class Spoken:
    """The dialect of the test that runs, and whether the test came across anything in which the dialects differ."""

    def __init__(self) -> None:
        self._dialect = Dialect.libvirt_9_0
        self.matters = False

    def begin(self, dialect: Dialect) -> None:
        self._dialect, self.matters = dialect, False

    def dialect(self) -> Dialect:
        """For whoever words an error in it."""
        self.matters = True
        return self._dialect


SPOKEN = Spoken()
