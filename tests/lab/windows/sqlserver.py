"""What a guest tells of its SQL Server: the registry, `sqlcmd` and `sc`.

Whatever a scenario lists, an instance has its system databases. A provider of events that is no SQL Server is another program, beside
a default instance that writes no event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.windows.scenario import Scenario, SqlInstance

_DEFAULT = "MSSQLSERVER"
_NAMED = "MSSQL$"
_SYSTEM_DATABASES = ("master", "model", "msdb")
_KEY = r"SOFTWARE\Microsoft\Microsoft SQL Server\Instance Names\SQL"


@dataclass(frozen=True)
class SqlServer:
    scenario: Scenario

    def registry(self, key: str) -> str | None:
        """What `reg query` prints of this key; None: it is not there, or is none of SQL Server's."""
        if key.lower().removeprefix("hklm\\") != _KEY.lower() or not self._instances():
            return None
        values = [f"    {_name(each)}    REG_SZ    MSSQL16.{_name(each)}" for each in self._instances()]
        return "\r\n".join(["", f"HKEY_LOCAL_MACHINE\\{_KEY}", *values, "", ""])

    def sqlcmd(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Exit code and output."""
        server = arguments[arguments.index("-S") + 1]
        wanted = server.partition("\\")[2] or _DEFAULT
        found = next((each for each in self._instances() if _name(each).lower() == wanted.lower()), None)
        if found is None or found.stopped:
            return 1, "Sqlcmd: Error: Microsoft ODBC Driver 17 for SQL Server : Login timeout expired.\r\n"
        if not self.scenario.sql.may_log_in:
            return 1, "Sqlcmd: Error: Microsoft ODBC Driver 17 for SQL Server : Login failed for user 'NT AUTHORITY\\SYSTEM'..\r\n"
        names = dict.fromkeys([*_SYSTEM_DATABASES, *found.databases, *found.silent])
        return 0, "".join(f"{name.encode('utf-16-le').hex().upper()}\r\n" for name in names)

    def service(self, name: str) -> tuple[int, str]:
        """Exit code and output of `sc query`."""
        found = next((each for each in self._instances() if each.instance.lower() == name.lower()), None)
        if found is None:
            return 1060, "[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\r\n"
        state = "1  STOPPED" if found.stopped else "4  RUNNING"
        lines = [
            "",
            f"SERVICE_NAME: {name}",
            "        TYPE               : 10  WIN32_OWN_PROCESS",
            f"        STATE              : {state}",
            "        WIN32_EXIT_CODE    : 0  (0x0)",
            "",
        ]
        return 0, "\r\n".join(lines)

    def _instances(self) -> list[SqlInstance]:
        has_writer = any(writer.name == "SqlServerWriter" for writer in self.scenario.writers)
        listed = [each for each in self.scenario.sql.instances() if each.instance == _DEFAULT or each.instance.startswith(_NAMED)]
        return (listed or [SqlInstance(instance=_DEFAULT)]) if has_writer or self.scenario.sql.databases else []


def _name(instance: SqlInstance) -> str:
    return instance.instance.removeprefix(_NAMED)
