import xml.etree.ElementTree as ET

import pytest

from service.model.host_adaptation import adapted, nearest_machine, with_own_endpoints

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


BESIDE = """<domain type='qemu'><name>x</name><devices>
<serial type='file'><source path='/log/x.log'/></serial><serial type='pty'><log file='/log/second.log' append='on'/></serial>
<console type='file'><source path='/log/x.log'/></console>
<channel type='unix'><source mode='bind' path='/run/x.sock'/><target type='virtio' name='org.example'/></channel>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<graphics type='vnc' port='5901' autoport='no'/><graphics type='spice' autoport='yes'/>
</devices></domain>"""


def test_a_domain_beside_its_original_shares_no_file_no_socket_and_no_port_with_it() -> None:
    xml, changes = with_own_endpoints(BESIDE, "/disks", "copy")
    assert [(change.what, change.was, change.becomes) for change in changes] == [
        ("serial", "/log/x.log", "/disks/copy-serial-0.log"),
        ("serial", "/log/second.log", "/disks/copy-serial-1.log"),
        ("channel", "/run/x.sock", None),
        ("graphics", "5901", None),
    ]
    for shared in ("/log/", "x.sock", "5901"):
        assert shared not in xml
    assert xml.count("/disks/copy-serial-0.log") == 2
    assert with_own_endpoints(xml, "/disks", "copy")[1][0].was == "/disks/copy-serial-0.log"


def test_a_domain_that_shares_nothing_stays_as_it_is() -> None:
    assert with_own_endpoints(_domain(), "/disks", "copy") == (_domain(), [])
