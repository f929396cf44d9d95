"""What a restore will write, what it keeps of the domain's identity, and what it refuses before anything is stopped."""

import json
from dataclasses import replace
from typing import Any

import pytest

from service.errors import DiskUnknown, RestoreRefused, StillpointError, TargetFull, UsnRisk
from service.model.backup_level import MAX_CHAIN
from service.model.host_adaptation import Adaptation
from service.model.inventory import DomainState
from service.model.manifest import DiskOfPoint, LeftOut, Manifest, StoredFile
from service.model.repository import DiskLevel, IdentityChoice, RestoreMode
from service.model.requests import RestoreRequest
from service.model.restore_facts import DefinedDisk, Definition, HostFacts, KnownDomain, PointFacts, Space
from service.model.restore_plan import MAX_INSTANT_LAYERS, RestorePlan, paths_of, plan
from service.model.windows.well_known_writers import NTDS

DOMAIN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
MAC = "52:54:00:aa:bb:cc"
GIB = 1 << 30


def disk(target: str = "vda", **more: Any) -> DiskOfPoint:
    plain = {"file": f"{target}.qcow2", "virtual_size": GIB, "level": DiskLevel.full, "reason": "", "content": "00", "copied_bytes": 0}
    return DiskOfPoint(**{"target": target, "blocks_file": f"{target}.blocks", **plain, **more})


def point(*disks: DiskOfPoint, **more: Any) -> PointFacts:
    chosen = disks or (disk(),)
    sizes = {each.target: 300 << 20 for each in chosen}
    return PointFacts(
        **{"id": "p1", "folder": "domains/a/b", "domain_id": DOMAIN, "domain_name": "db1", "stored_bytes": sizes, "disks": chosen, **more}
    )


def defined(target: str = "vda", **more: Any) -> DefinedDisk:
    plain = {"source": f"/images/{target}.qcow2", "type": "file", "device": "disk", "is_read_only": False, "serial": f"s-{target}"}
    return DefinedDisk(**{"target": target, **plain, **more})


def definition(*disks: DefinedDisk, **more: Any) -> Definition:
    return Definition(
        **{"name": "db1", "uuid": DOMAIN, "macs": (MAC,), "disks": {each.target: each for each in disks or (defined(),)}, **more}
    )


def facts(**more: Any) -> HostFacts:
    return HostFacts(**{"host_id": "hv1", "mark": "abcd1234", "definition": definition(), "current": definition(), **more})


def asked(mode: RestoreMode = RestoreMode.new, **more: Any) -> RestoreRequest:
    return RestoreRequest(recovery_point="p1", mode=mode, **more)


def domain(
    state: DomainState = DomainState.shut_off, uuid: str = DOMAIN, name: str = "db1", macs: frozenset[str] | None = None
) -> KnownDomain:
    return KnownDomain(uuid, name, state, macs)


OFF = facts(domains=(domain(),))


@pytest.mark.parametrize("mode", [RestoreMode.new, RestoreMode.files])
def test_a_point_on_a_chain_that_libvirt_does_not_start_is_not_restored_at_once_but_in_another_mode(mode: RestoreMode) -> None:
    longest = point(layers={"vda": MAX_INSTANT_LAYERS})
    assert plan(longest, asked(RestoreMode.instant), facts()).disks
    longer = point(layers={"vda": MAX_INSTANT_LAYERS + 1})
    refused(RestoreRefused, longer, asked(RestoreMode.instant), facts())
    assert plan(longer, asked(mode, folder="/images"), facts()).disks


def test_the_longest_chain_that_backups_make_can_be_restored_at_once() -> None:
    assert MAX_CHAIN <= MAX_INSTANT_LAYERS


def test_the_files_of_a_chain_are_counted_disk_by_disk() -> None:
    vda = disk(parent="p2", parent_folder="domains/a/p2", level=DiskLevel.bitmap)
    manifests = {
        "p1": manifest(disks=(vda, disk("vdb"))),
        "p2": manifest(disks=(disk(parent="p3", parent_folder="domains/a/p3", level=DiskLevel.bitmap), disk("vdb"))),
        "p3": manifest(disks=(disk(), disk("vdb"))),
    }
    assert PointFacts.of_manifest(manifests["p1"], manifests).layers == {"vda": 3, "vdb": 1}


def fates(made: RestorePlan) -> dict[str, str]:
    assert made.identity is not None
    return {part.what: part.fate.value for part in made.identity.parts}


def refused(error: type[StillpointError], *arguments: Any) -> StillpointError:
    with pytest.raises(error) as raised:
        plan(*arguments)
    assert raised.value.detail
    assert raised.value.remedy
    return raised.value


# --- identity -------------------------------------------------------------------------------------


def test_without_the_domain_on_the_host_everything_is_kept() -> None:
    made = plan(point(), asked(), facts())
    assert fates(made) == {"name": "kept", "uuid": "kept", "mac": "kept", "serial": "kept", "genid": "absent"}
    assert made.identity is not None
    assert (made.identity.uuid, made.identity.name, made.identity.macs) == (DOMAIN, "db1", {})


def test_beside_the_domain_uuid_name_and_mac_are_new_and_serials_are_kept() -> None:
    made = plan(point(), asked(), facts(domains=(domain(macs=frozenset({MAC})),)))
    assert fates(made) == {"name": "new", "uuid": "new", "mac": "new", "serial": "kept", "genid": "absent"}
    assert made.identity is not None
    assert made.identity.uuid != DOMAIN
    assert made.identity.name != "db1"
    assert made.identity.macs[MAC].startswith("52:54:00:")
    assert made.identity.macs[MAC] != MAC


def test_a_mac_address_that_another_domain_has_is_new_although_the_uuid_is_kept() -> None:
    made = plan(point(), asked(), facts(domains=(domain(uuid=OTHER, name="web", macs=frozenset({MAC})),)))
    assert (fates(made)["uuid"], fates(made)["mac"]) == ("kept", "new")


def test_the_next_attempt_has_the_same_new_values() -> None:
    request, host = asked(identity=IdentityChoice.new), facts(definition=definition(has_genid=True))
    first, second = plan(point(), request, host), plan(point(), request, host)
    other = plan(point(), request, replace(host, mark="ffff0000"))
    assert first.as_document() == second.as_document()
    assert first.identity is not None
    assert other.identity is not None
    assert first.identity.uuid != other.identity.uuid
    assert first.identity.genid != other.identity.genid


def test_the_uuid_that_the_api_chose_is_taken_because_the_job_locks_it() -> None:
    made = plan(point(), asked(new_uuid=OTHER), facts())
    assert made.identity is not None
    assert made.identity.uuid == OTHER


def test_keeping_the_uuid_of_a_domain_that_is_there_is_refused() -> None:
    refused(RestoreRefused, point(), asked(identity=IdentityChoice.keep), facts(domains=(domain(),)))


def on_hv2(state: DomainState, **more: Any) -> HostFacts:
    """The domain that was backed up is on another host, in this state."""
    return facts(elsewhere=(KnownDomain(DOMAIN, "db1", state, frozenset({MAC}), "hv2"),), **more)


@pytest.mark.parametrize("state", list(DomainState))
def test_beside_the_domain_on_another_host_uuid_name_and_mac_are_new(state: DomainState) -> None:
    made = plan(point(), asked(), on_hv2(state))
    assert (fates(made)["uuid"], fates(made)["mac"], fates(made)["name"]) == ("new", "new", "new")


def test_a_uuid_is_not_kept_while_the_domain_runs_on_another_host() -> None:
    error = refused(RestoreRefused, point(), asked(identity=IdentityChoice.keep), on_hv2(DomainState.running))
    assert "hv2" in error.remedy


@pytest.mark.parametrize("state", [DomainState.shut_off, DomainState.other])
def test_a_uuid_that_is_kept_although_another_host_has_it_warns(state: DomainState) -> None:
    made = plan(point(), asked(identity=IdentityChoice.keep), on_hv2(state))
    assert fates(made)["uuid"] == "kept"
    assert "same_uuid_elsewhere" in [warning.code for warning in made.warnings]


def test_a_mac_address_of_another_host_is_new_or_warned_of() -> None:
    host = facts(elsewhere=(KnownDomain(OTHER, "web", DomainState.running, frozenset({MAC}), "hv2"),))
    assert fates(plan(point(), asked(), host))["mac"] == "new"
    kept = plan(point(), asked(identity=IdentityChoice.keep), host)
    assert (fates(kept)["mac"], [warning.code for warning in kept.warnings][-1]) == ("kept", "same_mac")


def test_in_place_a_domain_that_runs_on_another_host_is_not_started() -> None:
    host = on_hv2(DomainState.running, domains=(domain(),))
    refused(RestoreRefused, point(), asked(RestoreMode.in_place, start=True), host)
    assert "same_uuid_elsewhere" in [warning.code for warning in plan(point(), asked(RestoreMode.in_place), host).warnings]


def test_a_name_that_is_taken_is_refused_and_a_free_one_is_used() -> None:
    host = facts(domains=(domain(uuid=OTHER, name="web"),))
    refused(RestoreRefused, point(), asked(name="web"), host)
    made = plan(point(), asked(name="web2"), host)
    assert made.identity is not None
    assert made.identity.name == "web2"


def test_an_identity_that_is_asked_to_be_new_has_new_serials_too() -> None:
    made = plan(point(), asked(identity=IdentityChoice.new), facts())
    assert (fates(made)["serial"], fates(made)["mac"], fates(made)["uuid"]) == ("new", "new", "new")
    assert made.identity is not None
    assert len(made.identity.serials["vda"]) == 20


def test_a_generation_id_is_new_in_every_mode_that_makes_a_domain_run() -> None:
    with_genid = definition(has_genid=True)
    host = facts(definition=with_genid, current=with_genid, domains=(domain(),))
    for mode in (RestoreMode.new, RestoreMode.instant, RestoreMode.in_place):
        made = plan(point(), asked(mode), host)
        assert made.identity is not None
        assert made.identity.genid is not None


# --- domain controllers ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [RestoreMode.new, RestoreMode.instant, RestoreMode.in_place])
def test_a_domain_controller_without_a_generation_id_is_refused_unless_the_risk_is_accepted(mode: RestoreMode) -> None:
    controller = point(is_domain_controller=True)
    refused(UsnRisk, controller, asked(mode), OFF if mode is RestoreMode.in_place else facts())
    made = plan(controller, asked(mode, accept_usn_risk=True), OFF if mode is RestoreMode.in_place else facts())
    assert "usn_risk_accepted" in {warning.code for warning in made.warnings}


def test_a_domain_controller_with_a_generation_id_is_restored_and_its_files_without_one() -> None:
    controller = point(is_domain_controller=True)
    plan(controller, asked(), facts(definition=definition(has_genid=True)))
    plan(controller, asked(RestoreMode.files, folder="/out"), facts())


def test_a_domain_controller_is_known_by_its_directory_writer() -> None:
    writers = [{"name": "NTDS", "class_id": NTDS.upper()}]
    assert PointFacts.of_manifest(manifest(vss={"applicable": True, "writers": writers}), {}).is_domain_controller
    assert not PointFacts.of_manifest(
        manifest(vss={"applicable": True, "writers": [], "writers_source": "vssadmin"}), {}
    ).is_domain_controller
    assert not PointFacts.of_manifest(manifest(vss=None), {}).is_domain_controller


# --- in place -------------------------------------------------------------------------------------


def test_in_place_the_new_disks_lie_beside_the_old_ones_and_replace_them() -> None:
    made = plan(point(), asked(RestoreMode.in_place), OFF)
    assert [(each.path, each.replaces) for each in made.disks] == [("/images/db1-vda.abcd1234.qcow2", "/images/vda.qcow2")]
    assert (made.must_stop, made.will_start) == (False, False)


def test_a_domain_that_runs_is_refused_unless_it_may_be_stopped() -> None:
    host = facts(domains=(domain(DomainState.running),))
    refused(RestoreRefused, point(), asked(RestoreMode.in_place), host)
    assert plan(point(), asked(RestoreMode.in_place, stop=True), host).must_stop


@pytest.mark.parametrize(
    ("request_more", "host"),
    [
        ({}, facts()),
        ({"identity": IdentityChoice.new}, OFF),
        ({"name": "web"}, OFF),
        ({}, replace(OFF, current=definition(defined("vdb")))),
        ({}, replace(OFF, current=definition(defined(type="block", source="/dev/vg/a")))),
    ],
    ids=["no such domain", "a new identity", "another name", "the disk was taken away", "a block device without a folder"],
)
def test_in_place_is_refused(request_more: dict[str, Any], host: HostFacts) -> None:
    refused(RestoreRefused, point(), asked(RestoreMode.in_place, **request_more), host)


def test_a_block_device_is_replaced_by_a_file_in_the_folder_that_was_named() -> None:
    host = replace(OFF, current=definition(defined(type="block", source="/dev/vg/a")))
    made = plan(point(), asked(RestoreMode.in_place, folder="/new"), host)
    assert [(each.path, each.replaces) for each in made.disks] == [("/new/db1-vda.abcd1234.qcow2", "/dev/vg/a")]


# --- files ----------------------------------------------------------------------------------------


def test_files_have_the_names_of_the_disks_and_no_domain_is_touched() -> None:
    made = plan(point(disk(), disk("vdb", source_format="raw")), asked(RestoreMode.files, folder="/out"), facts())
    assert [each.path for each in made.disks] == ["/out/vda.qcow2", "/out/vdb.img"]
    assert (made.identity, made.must_stop, made.will_start) == (None, False, False)
    refused(RestoreRefused, point(), asked(RestoreMode.files), facts())


def test_an_overlay_of_a_raw_disk_is_qcow2() -> None:
    made = plan(point(disk(source_format="raw")), asked(RestoreMode.instant), facts())
    assert (made.disks[0].format, made.will_start) == ("qcow2", True)


def test_an_encrypted_point_is_not_restored_instantly() -> None:
    refused(RestoreRefused, point(disk(is_encrypted=True)), asked(RestoreMode.instant), facts())


def test_only_the_disks_that_were_named_are_restored_and_the_plan_says_which_are_not() -> None:
    made = plan(point(disk(), disk("vdb"), left_out=(LeftOut("vdc", "shareable"),)), asked(disks=("vdb",)), facts())
    assert [each.target for each in made.disks] == ["vdb"]
    assert {"disk_not_in_point", "disk_not_restored"} <= {warning.code for warning in made.warnings}
    assert not made.restores_state
    refused(DiskUnknown, point(), asked(disks=("vdx",)), facts())
    refused(DiskUnknown, point(), asked(disks=()), facts())


def test_a_file_that_exists_is_not_overwritten() -> None:
    refused(RestoreRefused, point(), asked(RestoreMode.files, folder="/out"), facts(existing=frozenset({"/out/vda.qcow2"})))


def test_folders_on_one_filesystem_share_its_space() -> None:
    host = facts(spaces={"/images": Space(7, 500 << 20)}, definition=definition(defined(), defined("vdb")))
    plan(point(), asked(), host)
    error = refused(TargetFull, point(disk(), disk("vdb")), asked(), host)
    assert error.facts == {"folder": "/images", "needed_bytes": 600 << 20, "free_bytes": 500 << 20}


def test_a_long_name_is_cut_to_what_a_file_name_can_be() -> None:
    name = "ü" * 127
    made = plan(point(domain_name=name), asked(), facts())
    path = made.disks[0].path
    assert path is not None
    assert len(path.rpartition("/")[2].encode()) <= 255
    assert path.endswith("-vda.abcd1234.qcow2")


def test_what_is_stored_is_the_sum_of_the_chain_and_at_most_the_disk() -> None:
    child = manifest(point_id="p2", disks=(disk(level=DiskLevel.bitmap, parent="p1"),), files=(StoredFile("vda.qcow2", 50, ""),))
    assert PointFacts.of_manifest(child, {"p1": manifest()}).stored_bytes == {"vda": 150}
    assert plan(point(stored_bytes={"vda": 5 * GIB}), asked(), facts()).needed_bytes == GIB


# --- the preview: rows instead of the host --------------------------------------------------------


def test_a_plan_from_rows_says_what_is_not_known_yet() -> None:
    made = plan(point(stored_bytes={}), asked(), HostFacts("hv1", "preview0"))
    document = json.loads(json.dumps(made.as_document()))
    assert (document["disks"][0]["path"], document["needed_bytes"], document["seconds"]) == (None, None, None)
    assert {part["what"]: part["values"] for part in document["identity"]}["mac"] is None
    with pytest.raises(RestoreRefused):
        paths_of(made)


def test_the_time_follows_from_the_rate_on_record() -> None:
    assert plan(point(), asked(), facts(rate_bytes_s=100 << 20)).seconds == 3.0
    assert plan(point(), asked(), facts()).seconds is None


def test_what_was_adapted_is_told_with_its_reason() -> None:
    change = Adaptation("machine", "pc-q35-9.0", "pc-q35-7.2", "QEMU 7.2 does not have it")
    assert plan(point(), asked(), facts(adaptations=(change,))).as_document()["adaptations"] == [change.as_document()]


# --- the definition -------------------------------------------------------------------------------


def test_a_definition_is_read() -> None:
    xml = f"""<domain><name>db1</name><uuid>{DOMAIN.upper()}</uuid><genid>x</genid><os><nvram>/n/db1.fd</nvram></os><devices>
      <disk type='block' device='disk'><source dev='/dev/vg/a'/><target dev='vda'/><serial>s1</serial></disk>
      <disk type='file' device='cdrom'><target dev='hda'/><readonly/></disk>
      <interface><mac address='52:54:00:AA:BB:CC'/></interface></devices></domain>"""
    read = Definition.of_xml(xml)
    assert (read.name, read.uuid, read.macs, read.has_genid, read.nvram) == ("db1", DOMAIN, (MAC,), True, "/n/db1.fd")
    assert read.disks["vda"] == DefinedDisk("vda", "/dev/vg/a", "block", "disk", is_read_only=False, serial="s1")
    assert (read.disks["hda"].source, read.disks["hda"].is_read_only) == (None, True)


def manifest(**more: Any) -> Manifest:
    plain: dict[str, Any] = {"point_id": "p1", "repository_id": "r", "folder": "f", "job_id": "j", "host_id": "hv1", "domain_id": DOMAIN}
    plain |= {"domain_name": "db1", "point_in_time_at": "", "sealed_at": "", "verdict": "crash", "verdict_reasons": ()}
    return Manifest(**plain | {"disks": (disk(),), "left_out": (), "files": (StoredFile("vda.qcow2", 100, ""),)} | more)
