"""What libvirt says of the user that QEMU runs as, and of the other security drivers (AppArmor, SELinux) that stand before its files."""

import grp
import os
import pwd
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from service.hypervisor.qemu_process import Credentials

DAC = "dac"


@dataclass(frozen=True)
class SecurityLabel:
    """One `<seclabel>` of a domain. `relabels`: libvirt gives it to the files that it hands to QEMU."""

    model: str
    label: str | None
    relabels: bool


def of_domain(domain_xml: str) -> dict[str, SecurityLabel]:
    """By model; a domain that is shut off has only those that its definition fixes."""
    found: dict[str, SecurityLabel] = {}
    for element in ET.fromstring(domain_xml).iterfind("./seclabel"):
        model, kind = element.get("model", ""), element.get("type", "dynamic")
        relabels = element.get("relabel", "no" if kind in ("static", "none") else "yes") == "yes"
        found[model] = SecurityLabel(model, element.findtext("label"), relabels)
    return found


def of_host(capabilities_xml: str) -> dict[str, SecurityLabel]:
    """By model: the drivers that are active, with what a new QEMU gets from each."""
    found: dict[str, SecurityLabel] = {}
    for element in ET.fromstring(capabilities_xml).iterfind("./host/secmodel"):
        model = element.findtext("model") or ""
        found[model] = SecurityLabel(model, element.findtext("baselabel"), relabels=True)
    return found


def user_of(label: str | None) -> Credentials | None:
    """Of a DAC label: `+64055:+107`, or names. None: there is none, or it names somebody whom this machine does not know."""
    user, separator, group = (label or "").partition(":")
    if not separator:
        return None
    try:
        uid = int(user.removeprefix("+")) if user.removeprefix("+").isdigit() else pwd.getpwnam(user).pw_uid
        gid = int(group.removeprefix("+")) if group.removeprefix("+").isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        return None
    return Credentials(uid, gid, _groups(uid, gid))


def _groups(uid: int, gid: int) -> tuple[int, ...]:
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return (gid,)
