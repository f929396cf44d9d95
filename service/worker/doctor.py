"""Checks what would prevent this host from working, before a job fails because of it."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from service import bounded_io
from service.config import Settings
from service.db import belonging, room, url
from service.db.engine import Database, open_engine, translated_errors
from service.db.schema import check_schema
from service.db.writable import Trial
from service.errors import DatabaseUnavailable, SchemaOutdated, StillpointError, StorageNotAnswering
from service.worker.finding import Finding, Health


def examine(settings: Settings) -> Iterator[Finding]:
    """Yields one finding after the other, so that a slow check does not delay the findings before it."""
    yield from _state_dir(settings.state_dir)
    yield from _database(settings)
    yield _token_file(settings.token_file)
    yield _libvirt(settings.libvirt_uri)
    yield _overlays(settings)
    yield from _files(settings)


def effective_settings(settings: Settings) -> dict[str, str]:
    """Every setting by its name in the environment, passwords masked."""
    shown = {f"STILLPOINT_{name.upper()}": str(value) if value is not None else "" for name, value in settings.model_dump().items()}
    shown["STILLPOINT_DATABASE_URL"] = url.shown(settings.effective_database_url)
    shown["STILLPOINT_LIBVIRT_URI"] = url.without_secrets(settings.libvirt_uri)
    return shown


def _state_dir(path: Path) -> Iterator[Finding]:
    subject = "state folder"
    if not path.is_dir():
        existing = next(folder for folder in path.parents if folder.is_dir())
        if path.exists() or not os.access(existing, os.W_OK | os.X_OK):
            remedy = "Set STILLPOINT_STATE_DIR, or give this user the folder."
            yield Finding(Health.fail, subject, f"{path} does not exist and cannot be made", remedy)
        else:
            yield Finding(Health.ok, subject, f"{path} does not exist yet and will be made")
        return
    try:
        room.find(path)
    except OSError as error:
        remedy = "Free space there, give this user the folder, or set STILLPOINT_STATE_DIR."
        yield Finding(Health.fail, subject, f"{path} cannot be written to: {error.strerror or error}", remedy)
    else:
        yield Finding(Health.ok, subject, str(path))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(Health.warn, subject, f"{path} has mode {mode:04o}: other users can see its files", f"chmod 700 {path}")


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        engine = open_engine(url.database_url(settings))
    except ModuleNotFoundError as error:
        yield Finding(Health.fail, "database", f"the driver {error.name} is not installed", "pip install 'stillpoint[postgres]'")
        return
    except StillpointError as error:
        yield _failed("database", error)
        return
    yield from _connected(settings, Database(engine))
    engine.dispose()


def _connected(settings: Settings, database: Database) -> Iterator[Finding]:
    shown = url.shown(database.engine.url)
    try:
        belonging.check(settings, database.engine)
        if database.file is not None and not database.file.path.exists():
            remedy = "`stillpoint all` makes the file, and so does `stillpoint migrate`."
            yield Finding(Health.warn, "database", f"{database.file.path} does not exist yet", remedy)
            return
        with translated_errors(), database.engine.connect():
            yield Finding(Health.ok, "database", f"{shown} answers")
        check_schema(database)
        yield Finding(Health.ok, "schema", "the tables fit this version")
        Trial(database).check()
        yield Finding(Health.ok, "database", "the worker can write to the database")
    except SchemaOutdated as error:
        yield _failed("schema", error)
    except DatabaseUnavailable as error:
        yield Finding(Health.fail, "database", f"{shown}: {error.facts.get('reason', error.detail)}", error.remedy)
    except StillpointError as error:
        yield _failed("database", error)
    yield from _files_of(database)


def _files_of(database: Database) -> Iterator[Finding]:
    """Checks the rights of the database file and of its -wal, which holds the last writes."""
    if database.file is None:
        return
    path = database.file.path
    files = [file for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")) if file.is_file()]
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                Health.fail, "database", f"{file} has mode {mode:04o}: other users can read the evidence of all jobs", f"chmod 600 {file}"
            )


def _token_file(path: Path) -> Finding:
    try:
        status = path.stat()
    except FileNotFoundError:
        return Finding(Health.ok, "token file", f"{path} does not exist: the first start writes it, unless a token exists already")
    except OSError as error:
        return Finding(Health.warn, "token file", f"{path}: {error.strerror}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return Finding(Health.fail, "token file", f"{path} has mode {mode:04o}: other users can read the token", f"chmod 600 {path}")
    return Finding(Health.ok, "token file", f"{path} has mode {mode:04o}")


def _libvirt(uri: str) -> Finding:
    try:
        from service.hypervisor.connection import HostConnection
    except ImportError:
        detail = "libvirt-python is not installed: this machine can serve the API, but run no jobs"
        return Finding(Health.warn, "libvirt", detail, "apt install python3-libvirt, or pip install 'stillpoint[host]'.")
    connection = HostConnection(uri)
    try:
        versions = connection.versions()
        return Finding(
            Health.ok, "libvirt", f"{uri}: libvirt {versions['libvirt']}, {versions['hypervisor']}, {len(connection.guests())} domains"
        )
    except StillpointError as error:
        return _failed("libvirt", error)
    finally:
        connection.close()


def _overlays(settings: Settings) -> Finding:
    folder = settings.overlay_dir
    if folder is None:
        return Finding(Health.ok, "overlays", "each overlay is made in the folder of its disk; preflight checks the space there")
    try:
        return bounded_io.call("looking at", folder, lambda: _overlay_folder(folder, settings.overlay_reserve_bytes))
    except StorageNotAnswering as error:
        return _failed("overlays", error)


def _files(settings: Settings) -> Iterator[Finding]:
    try:
        from service.worker import doctor_domains, doctor_files
    except ImportError:
        # Without libvirt-python this machine runs no jobs. The finding about libvirt has said so.
        return
    yield from doctor_files.examine(settings)
    yield from doctor_domains.examine(settings)


def _overlay_folder(folder: Path, reserve_bytes: int) -> Finding:
    if not folder.is_dir():
        remedy = "Make the folder, or set STILLPOINT_OVERLAY_DIR to a folder that exists."
        return Finding(Health.fail, "overlays", f"{folder} is not a folder", remedy)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(Health.fail, "overlays", f"{folder} cannot be written to", "Give this user the right to write there.")
    free = shutil.disk_usage(folder).free
    if free < reserve_bytes:
        detail = f"{folder} has {free} bytes free; each overlay needs {reserve_bytes}"
        return Finding(Health.fail, "overlays", detail, "Free space there, or set STILLPOINT_OVERLAY_DIR to another folder.")
    return Finding(Health.ok, "overlays", f"{folder} has {free // 1024**2} MiB free")


def _failed(subject: str, error: StillpointError) -> Finding:
    return Finding(Health.fail, subject, error.detail, error.remedy)
