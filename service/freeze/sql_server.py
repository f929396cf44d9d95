"""SQL Server's evidence of a freeze, read in the guest after the thaw: its events, and the databases that should be among them."""

import time
from dataclasses import replace

from service.freeze import windows_programs
from service.freeze.windows_programs import MAX_EVENTS
from service.hypervisor.guest import Guest
from service.model.windows import event_xml, sql_evidence, sql_server
from service.model.windows.event_xml import EventPage, WrittenEvent
from service.model.windows.sql_evidence import SqlEvidence
from service.model.windows.sql_server import InstanceState, SqlInstance

MAX_PAGES = 64
"""Pages of events that are read. With more, the events count as not readable."""
READING_BUDGET_S = 60.0
"""Seconds to read all pages. After that the events count as not readable."""
RESUMED_BUDGET_S = 2.0
"""Seconds to wait for the event that I/O was resumed, which SQL Server writes after the thaw. Then the event counts as missing."""
RESUMED_PAUSE_S = 0.5
"""Seconds between two reads of the events."""


def read_events(guest: Guest, newest_before: int | None) -> SqlEvidence:
    """`newest_before`: the newest record from before the freeze. None: it is not known. Never raises if the guest gives no answer."""
    if newest_before is None:
        return sql_evidence.not_remembered()
    deadline = time.monotonic() + RESUMED_BUDGET_S
    while True:
        evidence = _read_all(guest, newest_before)
        if not sql_evidence.is_waiting(evidence) or time.monotonic() > deadline:
            break
        time.sleep(RESUMED_PAUSE_S)
    return sql_evidence.complete(evidence, _instances(guest)) if sql_evidence.pairs_up(evidence) else evidence


def _read_all(guest: Guest, newest_before: int) -> SqlEvidence:
    """Read page by page, because a guest may have more databases than one page holds."""
    events: list[WrittenEvent] = []
    after, deadline = newest_before, time.monotonic() + READING_BUDGET_S
    for _ in range(MAX_PAGES):
        page = _page(guest, after)
        if page is None or time.monotonic() > deadline:
            break
        events += [event for event in page.events if event.record_id > after]
        if page.is_whole and len(page.events) < MAX_EVENTS:
            return sql_evidence.paired(events)
        newest = page.newest
        if newest is None or newest <= after:
            break
        after = newest
    return sql_evidence.unreadable(events)


def _page(guest: Guest, after: int) -> EventPage | None:
    """None: the output cannot be relied on. An output that the agent cut off is used as far as it goes. The rest is read next."""
    printed = windows_programs.sql_events_after(guest, after)
    if printed.problem is not None:
        return None
    page = event_xml.read(printed.output)
    if not page.is_sound:
        return None
    return replace(page, is_whole=page.is_whole and not printed.cut_off)


def _instances(guest: Guest) -> list[SqlInstance] | None:
    names: list[str] = []
    for printed in windows_programs.query_sql_instances(guest):
        # Exit code 1: the key does not exist, because no instance of that width is installed.
        if printed.exit_code not in (0, 1) or printed.cut_off:
            return None
        names += sql_server.instances_in(printed.output) if printed.exit_code == 0 else []
    return [_instance(guest, name) for name in dict.fromkeys(names)]


def _instance(guest: Guest, name: str) -> SqlInstance:
    listed = windows_programs.list_databases(guest, name)
    if listed.problem is None and not listed.cut_off:
        databases = sql_server.databases_in(listed.output)
        return SqlInstance(name, InstanceState.listed if databases is not None else InstanceState.unknown, databases)
    service = windows_programs.query_service(guest, sql_server.source_of(name))
    is_stopped = service.problem is None and sql_server.is_stopped(service.output)
    return SqlInstance(name, InstanceState.stopped if is_stopped else InstanceState.unknown)
