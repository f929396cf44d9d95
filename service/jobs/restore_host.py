"""What a restore must know of its host before it plans: the domains, the definitions, the space, and QEMU's user."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace

from service.errors import DomainGone, LibvirtUnavailable, RestoreRefused, StillpointError, StorageRefused
from service.hypervisor import security_labels
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import Credentials
from service.hypervisor.security_labels import DAC
from service.jobs import restore_files
from service.jobs.kind import Host
from service.jobs.restore_source import Source
from service.jobs.run import JobRun
from service.model import host_adaptation
from service.model.host_adaptation import Adaptation
from service.model.inventory import DomainState
from service.model.repository import RestoreMode
from service.model.requests import RestoreRequest
from service.model.restore_facts import Definition, HostFacts, KnownDomain, PointFacts, any_says
from service.model.restore_plan import PREVIEW_MARK, RestorePlan, paths_of, plan
from service.records import domain_controllers, known_domains, restore_rates


def mark_of(job_id: str, attempt: int) -> str:
    """A part of the names of new files. Each attempt has its own, because the files of the one before may still be written to."""
    return job_id[:8] if attempt <= 1 else f"{job_id[:8]}-{attempt}"


def mark_for(run: JobRun) -> str:
    """A job that only plans writes no file, so its plan has the mark of none."""
    return PREVIEW_MARK if run.request(RestoreRequest).plan_only else mark_of(run.claim.job_id, run.claim.attempt)


def adapted(host: Host, source: Source, request: RestoreRequest) -> tuple[str, list[Adaptation]]:
    """The definition in the point as this host can run it. The definition of a domain in place runs here already."""
    if request.mode in (RestoreMode.files, RestoreMode.in_place):
        return source.definition, []
    root = ET.fromstring(source.definition)
    kind = root.find("./os/type")
    arch, machine = (kind.get("arch", "x86_64"), kind.get("machine")) if kind is not None else ("x86_64", None)
    connection = host.connection
    models = connection.domain_capabilities(arch, machine, root.get("type", "kvm"))
    return host_adaptation.adapted(source.definition, connection.capabilities(), models)


def planned(run: JobRun, host: Host, source: Source, request: RestoreRequest, adaptations: Sequence[Adaptation]) -> RestorePlan:
    """Raises RestoreRefused, UsnRisk, TargetFull, DiskUnknown, and the errors of libvirt and of the storage."""
    point = PointFacts.of_manifest(source.manifest, source.chain)
    on_record = run.in_transaction(lambda session: domain_controllers.is_controller(session, source.manifest.domain_id))
    point = replace(point, is_domain_controller=any_says(point.is_domain_controller, on_record))
    facts = replace(_facts(run, host, source, request), adaptations=adaptations)
    first = plan(point, request, facts)
    paths = paths_of(first)
    try:
        spaces = restore_files.spaces(first.folders)
    except StorageRefused as error:
        reason = f"{error.facts['path']}: {error.facts['reason']}"
        raise RestoreRefused(domain=point.domain_name, reason=reason, instead="Make that folder, or name another `folder`.") from error
    facts = replace(facts, spaces=spaces, existing=restore_files.existing(list(paths.values())))
    return plan(point, request, facts)


def _facts(run: JobRun, host: Host, source: Source, request: RestoreRequest) -> HostFacts:
    claim = run.claim
    guests = host.guests()
    in_place = next((guest for guest in guests if guest.uuid == source.manifest.domain_id), None)
    return HostFacts(
        host_id=claim.host_id,
        mark=mark_for(run),
        domains=tuple(known for guest in guests if (known := _known(guest)) is not None),
        elsewhere=run.in_transaction(lambda session: known_domains.of_other_hosts(session, claim.host_id)),
        definition=Definition.of_xml(source.definition),
        current=_current(in_place) if request.mode is RestoreMode.in_place and in_place is not None else None,
        rate_bytes_s=run.in_transaction(lambda session: restore_rates.rate(session, claim.host_id)),
    )


def _current(guest: Guest) -> Definition:
    """Raises RestoreRefused: what would become of a domain without a definition, or with saved memory, cannot be said."""
    if not guest.is_persistent():
        raise RestoreRefused(
            domain=guest.name, reason="libvirt keeps no definition of the domain", instead="Define the domain, or use the mode `new`."
        )
    if guest.has_managed_save():
        raise RestoreRefused(
            domain=guest.name,
            reason="the domain has a managed save, and its saved memory does not fit the restored disks",
            instead=f"Start the domain, or give up the saved memory: `virsh managedsave-remove {guest.name}`.",
        )
    return Definition.of_xml(guest.inactive_xml())


def _known(guest: Guest) -> KnownDomain | None:
    """None: the domain is gone meanwhile. A domain that hangs must not stop the restore of another domain."""
    try:
        return KnownDomain(guest.uuid, guest.name, guest.state(), frozenset(Definition.of_xml(guest.xml()).macs))
    except LibvirtUnavailable:
        raise
    except DomainGone:
        return None
    except StillpointError:
        return KnownDomain(guest.uuid, guest.name, DomainState.other)


def qemu_user(host: Host, definition: str) -> Credentials:
    """The user of the QEMU that the definition will start."""
    labels = security_labels.of_domain(definition)
    named = security_labels.user_of(labels[DAC].label) if DAC in labels else None
    if named is not None:
        return named
    driver = host.connection.security_drivers().get(DAC)
    default = security_labels.user_of(driver.label) if driver is not None else None
    # A session's libvirt runs QEMU as its own user. The worker runs as that user, too.
    return default or Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups()))


def find(host: Host, uuid: str) -> Guest | None:
    """Raises LibvirtUnavailable."""
    try:
        return host.guest(uuid)
    except DomainGone:
        return None
