"""libvirt's security labels: the user that QEMU runs as, and the labels of other security drivers (AppArmor, SELinux)."""

import grp
import os
import pwd
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from service.hypervisor.qemu_process import Credentials

DAC = "dac"


@dataclass(frozen=True)
class SecurityLabel:
    """One `<seclabel>` of a domain. `relabels`: libvirt gives this label to the files that QEMU opens."""

    model: str
    label: str | None
    relabels: bool


def of_domain(domain_xml: str) -> dict[str, SecurityLabel]:
    """By model. A domain that is shut off has only the labels that its definition fixes."""
    labels: dict[str, SecurityLabel] = {}
    for element in ET.fromstring(domain_xml).iterfind("./seclabel"):
        model, kind = element.get("model", ""), element.get("type", "dynamic")
        relabels = element.get("relabel", "no" if kind in ("static", "none") else "yes") == "yes"
        labels[model] = SecurityLabel(model, element.findtext("label"), relabels)
    return labels


def of_host(capabilities_xml: str) -> dict[str, SecurityLabel]:
    """By model: the active drivers, each with the label that a new QEMU gets."""
    drivers: dict[str, SecurityLabel] = {}
    for element in ET.fromstring(capabilities_xml).iterfind("./host/secmodel"):
        model = element.findtext("model") or ""
        drivers[model] = SecurityLabel(model, element.findtext("baselabel"), relabels=True)
    return drivers


def user_of(label: str | None) -> Credentials | None:
    """The user of a DAC label: `+64055:+107`, or names. None: there is no label, or this machine does not know the user."""
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
