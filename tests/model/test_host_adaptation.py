import xml.etree.ElementTree as ET

import pytest

from service.model.host_adaptation import adapted, nearest_machine

HOST = """<capabilities><guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
<machine>pc-i440fx-7.2</machine><machine canonical='pc-i440fx-7.2'>pc</machine><machine>pc-q35-7.2</machine><machine>pc-q35-6.2</machine>
<domain type='qemu'/>{kvm}</arch></guest></capabilities>"""
WITH_KVM, WITHOUT_KVM = HOST.format(kvm="<domain type='kvm'/>"), HOST.format(kvm="")
MODELS = """<domainCapabilities><cpu><mode name='custom' supported='yes'><model usable='no'>Skylake-Server</model>
<model usable='yes'>Westmere</model></mode></cpu></domainCapabilities>"""


def _domain(*, kind: str = "kvm", machine: str = "pc-q35-7.2", cpu: str = "", emulator: str = "/usr/bin/qemu-system-x86_64") -> str:
    return (
        f"<domain type='{kind}'><name>x</name><os><type arch='x86_64' machine='{machine}'>hvm</type></os>{cpu}"
        f"<devices><emulator>{emulator}</emulator></devices></domain>"
    )


def test_a_definition_that_the_host_knows_stays_as_it_is() -> None:
    xml = _domain(cpu="<cpu mode='custom'><model>Westmere</model></cpu>")
    assert adapted(xml, WITH_KVM, MODELS) == (xml, [])


@pytest.mark.parametrize(
    ("machine", "nearest"),
    [
        ("pc-q35-10.0", "pc-q35-7.2"),
        ("pc-q35-7.1", "pc-q35-6.2"),
        ("pc-q35-2.4", "pc-q35-6.2"),
        ("pc-i440fx-rhel7.6.0", "pc-i440fx-7.2"),
        ("virt-7.2", None),
        ("pc", None),
    ],
)
def test_the_nearest_machine_is_of_the_same_family_and_not_newer_if_possible(machine: str, nearest: str | None) -> None:
    assert nearest_machine(machine, {"pc-i440fx-7.2", "pc", "pc-q35-7.2", "pc-q35-6.2"}) == nearest


def test_a_machine_that_the_host_does_not_have_is_replaced_and_told() -> None:
    xml, changes = adapted(_domain(machine="pc-q35-10.0"), WITH_KVM)
    assert [(change.what, change.was, change.becomes) for change in changes] == [("machine", "pc-q35-10.0", "pc-q35-7.2")]
    kind = ET.fromstring(xml).find("./os/type")
    assert kind is not None
    assert kind.get("machine") == "pc-q35-7.2"


def test_without_hardware_virtualization_the_guest_is_emulated_and_has_no_cpu_of_the_host() -> None:
    xml, changes = adapted(_domain(cpu="<cpu mode='host-passthrough'/>"), WITHOUT_KVM)
    assert [change.what for change in changes] == ["type", "cpu"]
    assert (ET.fromstring(xml).get("type"), ET.fromstring(xml).find("cpu")) == ("qemu", None)


def test_an_emulator_at_another_path_is_the_one_of_the_host() -> None:
    xml, changes = adapted(_domain(emulator="/usr/libexec/qemu-kvm"), WITH_KVM)
    assert ET.fromstring(xml).findtext("./devices/emulator") == "/usr/bin/qemu-system-x86_64"
    assert [change.what for change in changes] == ["emulator"]


@pytest.mark.parametrize("model", ["Skylake-Server", "Unheard-Of"])
def test_a_cpu_that_the_host_cannot_give_becomes_the_nearest_of_the_host(model: str) -> None:
    xml, changes = adapted(_domain(cpu=f"<cpu mode='custom'><model>{model}</model></cpu>"), WITH_KVM, MODELS)
    assert [(change.was, change.becomes) for change in changes] == [(model, "host-model")]
    cpu = ET.fromstring(xml).find("cpu")
    assert cpu is not None
    assert cpu.get("mode") == "host-model"


def test_models_of_cpus_that_nobody_asked_for_are_not_judged() -> None:
    xml = _domain(cpu="<cpu mode='custom'><model>Skylake-Server</model></cpu>")
    assert adapted(xml, WITH_KVM) == (xml, [])


def test_an_architecture_that_the_host_does_not_have_is_left_to_libvirt() -> None:
    xml = _domain().replace("x86_64", "riscv64")
    assert adapted(xml, WITH_KVM) == (xml, [])
