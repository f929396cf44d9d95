"""A machine on which packages are not installed: what a process of the service there can still do."""

from collections.abc import Sequence
from pathlib import Path

from service.db.engine import Database, open_engine
from tests.api.world import add_domain, add_host
from tests.databases import migrate, sqlite_url
from tests.service_process import ServiceProcess

_REFUSES = 'raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)\n'


def service_without(modules: Sequence[str], folder: Path) -> ServiceProcess:
    """`stillpoint serve` that finds none of the modules, with a host and its domain `db1` in its database. It is not started."""
    hidden, state_dir = folder / "hidden", folder / "state"
    for each in (hidden, state_dir):
        each.mkdir()
    for module in modules:
        (hidden / f"{module}.py").write_text(_REFUSES)
    url = sqlite_url(state_dir / "stillpoint.db")
    migrate(url)
    database = Database(open_engine(url))
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1")
    database.dispose()
    process = ServiceProcess(state_dir, libvirt_uri="test:///default", command="serve")
    process.environment["PYTHONPATH"] = str(hidden)
    return process
