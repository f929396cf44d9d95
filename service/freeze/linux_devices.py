"""Reads the block devices of a Linux guest: which are mounted, used for swap or open, and what the other devices contain.

The agent lists what is mounted where it runs. Containers, `unshare -m`, ZFS and programs that use a disk raw are seen only
in /proc and /sys. Shell and busybox are all that the guest needs.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from service.hypervisor.guest import Guest
from service.model.block_devices import BlockDevice, Content, GuestDevices, Mount, targets_by_serial
from service.model.inventory import Disk

READ_BUDGET_MS = 20_000
"""Milliseconds for the program that reads contents. After that the contents are not known."""

LIST_DEVICES = r"""
echo @devices
for path in /sys/class/block/*; do
    read -r number < "$path/dev" || continue
    parent=; slaves=; serial=
    [ -e "$path/partition" ] && { parent=$(readlink -f "$path"); parent=${parent%/*}; parent=${parent##*/}; }
    for slave in "$path"/slaves/*; do [ -e "$slave" ] && slaves="$slaves ${slave##*/}"; done
    for file in "$path/serial" "$path/device/serial"; do [ -r "$file" ] && read -r serial < "$file"; done 2> /dev/null
    echo "${path##*/}|$number|$parent|$slaves|$serial"
done
echo @btrfs
for path in /sys/fs/btrfs/*/devices/*; do [ -e "$path" ] && { fs=${path%/devices/*}; echo "${fs##*/} ${path##*/}"; }; done
echo @live
for path in /sys/fs/ext4/* /sys/fs/xfs/* /sys/fs/f2fs/*; do [ -d "$path" ] && { fs=${path%/*}; echo "${fs##*/} ${path##*/}"; }; done
echo @swaps; cat /proc/swaps
echo @mounts; cat /proc/self/mountinfo
echo @elsewhere
own=$(readlink /proc/self/ns/mnt)
ls -l /proc/[0-9]*/ns/mnt 2> /dev/null | sed -n 's|.* /proc/\([0-9]*\)/ns/mnt -> \(.*\)|\2 \1|p' | sort -u -k 1,1 | while read -r id pid; do
    [ "$id" = "$own" ] && continue
    read -r program < "/proc/$pid/comm" || continue
    echo "process $pid $program"
    grep -E '^[0-9]+ [0-9]+ [1-9]|- btrfs /dev/' "/proc/$pid/mountinfo"
done 2> /dev/null
echo @open
ls -l /proc/[0-9]*/fd 2> /dev/null | sed -n -e 's|^/proc/\([0-9]*\)/fd:$|process \1|p' -e 's|.* -> /dev/||p'
"""

# Nothing but zeros at the start, at the end and in between, and no write since the boot: who reads more reads for minutes.
_READ_CONTENTS = r"""
blocks() { dd "if=$device" bs=65536 "skip=$1" "count=$2" 2> /dev/null; }
look() { [ "$(blocks "$1" "$2" | wc -c)" -gt 0 ] && [ "$(blocks "$1" "$2" | tr -d '\000' | head -c 1 | wc -c)" -eq 0 ]; }
is_empty() {
    [ "$writes" = 0 ] || return 1
    look 0 16 || return 1
    count=$((size / 128)); [ $count -gt 17 ] || count=17
    look $((count - 17)) 18 || return 1
    place=1; while [ $place -le 16 ]; do look $((count * place / 17)) 1 || return 1; place=$((place + 1)); done
}
for name in %s; do
    device=/dev/$(echo "$name" | tr '!' /)
    [ -b "$device" ] && [ -r "$device" ] || continue
    kind=$(blkid -p -s TYPE -o value "$device" 2> /dev/null)
    [ -n "$kind" ] || kind=$(blkid "$device" 2> /dev/null | sed -n 's/.* TYPE="\([^"]*\)".*/\1/p')
    read -r _ _ _ _ writes _ < "/sys/class/block/$name/stat"; read -r size < "/sys/class/block/$name/size"
    [ "$(dd "if=$device" bs=1 skip=4086 count=10 2> /dev/null)" = SWAPSPACE2 ] && kind=swap
    if [ -z "$kind" ] && is_empty; then echo "$name empty"; else echo "$name holds $kind"; fi
done
"""

_NAME = re.compile(r"[A-Za-z0-9!_.:-]+")


def read_devices(guest: Guest, text: str, disks: Sequence[Disk], guest_disks: Mapping[str, str]) -> GuestDevices | None:
    """None: the guest's shell gave no answer. `guest_disks`: by whole disk of the guest, libvirt's name, as libvirt matched them.

    `text`: what LIST_DEVICES prints. Raises StillpointError.
    """
    parsed = parse_devices(text, disks, guest_disks)
    if parsed is None:
        return None
    unknown = [name for target in parsed.targets.values() for name in parsed.leaves_of(target) if _is_unknown(parsed, name)]
    if unknown:
        script = _READ_CONTENTS % " ".join(unknown)
        contents = guest.execute("/bin/sh", ["-c", script], budget_ms=READ_BUDGET_MS)
        parsed.contents = parse_contents(contents.output.decode(errors="replace"))
    return parsed


def _is_unknown(parsed: GuestDevices, name: str) -> bool:
    return not (name in parsed.mounted or name in parsed.swaps or name in parsed.elsewhere) and _NAME.fullmatch(name) is not None


def parse_devices(text: str, disks: Sequence[Disk], guest_disks: Mapping[str, str]) -> GuestDevices | None:
    parts = sections(text)
    devices = {device.name: device for line in parts.get("devices", []) if (device := _device(line)) is not None}
    if not devices or "open" not in parts:
        return None
    names = {device.number: device.name for device in devices.values()}
    parsed = GuestDevices(devices, dict(guest_disks) or targets_by_serial(devices, {d.target: d.serial for d in disks if d.serial}))
    parsed.btrfs = _btrfs(parts.get("btrfs", []))
    parsed.mounted = dict(_mounts(parts.get("mounts", []), names))
    parsed.swaps = frozenset(name for line in parts.get("swaps", []) if (name := _swap(line, devices)) is not None)
    here = {member for name in parsed.mounted for member in parsed.members(name)}
    parsed.elsewhere = {name: words for name, words in _elsewhere(parts, names).items() if name in devices and name not in here}
    parsed.open_by = _open_by(parts["open"], devices)
    return parsed


def parse_contents(text: str) -> dict[str, Content]:
    contents = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if rest == "empty":
            contents[name] = Content(None, is_empty=True)
        elif rest.split(" ", 1)[0] == "holds":
            contents[name] = Content(rest.removeprefix("holds").strip() or None, is_empty=False)
    return contents


def sections(text: str) -> dict[str, list[str]]:
    """The lines under each `@name` line."""
    by_name: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("@"):
            current = by_name.setdefault(line[1:], [])
        else:
            current.append(line)
    return by_name


def _device(line: str) -> BlockDevice | None:
    fields = line.split("|", 4)
    if len(fields) != 5 or not fields[0]:
        return None
    name, number, parent, slaves, serial = (field.strip() for field in fields)
    return BlockDevice(name, number, parent or None, tuple(slaves.split()), serial or None)


def _btrfs(lines: Iterable[str]) -> tuple[frozenset[str], ...]:
    groups: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        fs, _, device = line.partition(" ")
        groups[fs].add(device)
    return tuple(frozenset(group) for group in groups.values())


def _mounts(lines: Iterable[str], names: Mapping[str, str]) -> Iterable[tuple[str, Mount]]:
    """The device name and the mount of each line in a mountinfo whose device is known."""
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or len(more) < 3:
            continue
        # btrfs shows a device number of its own, and the real device only by name.
        name = names.get(fields[2]) or (more[1].removeprefix("/dev/") if more[1].startswith("/dev/") else None)
        if name is not None:
            yield name, Mount(_unescaped(fields[4]), more[0], "ro" in more[2].split(","))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _swap(line: str, devices: Mapping[str, BlockDevice]) -> str | None:
    fields = line.split()
    name = fields[0].removeprefix("/dev/").replace("/", "!") if fields else ""
    return name if name in devices else None


def _elsewhere(parts: Mapping[str, list[str]], names: Mapping[str, str]) -> dict[str, str]:
    """By device: a mount in another namespace. A live superblock without a visible mount is mounted in a namespace without processes."""
    holders: dict[str, str] = {}
    for line in parts.get("live", []):
        kind, _, name = line.partition(" ")
        holders[name] = f"{kind}, in a mount namespace of its own"
    process = ""
    for line in parts.get("elsewhere", []):
        if line.startswith("process "):
            pid, _, program = line.removeprefix("process ").partition(" ")
            process = f"of process {pid} ({program})"
            continue
        for name, mount in _mounts([line], names):
            if mount.read_only:
                holders.pop(name, None)
                continue
            holders[name] = f"{mount.type} at {mount.mountpoint}, in the mount namespace {process}"
    return holders


def _open_by(lines: Iterable[str], devices: Mapping[str, BlockDevice]) -> dict[str, tuple[int, ...]]:
    pids_of: dict[str, set[int]] = defaultdict(set)
    pid = 0
    for line in lines:
        word, _, number = line.partition(" ")
        if word == "process" and number.isdigit():
            pid = int(number)
        elif (name := line.strip().replace("/", "!")) in devices:
            pids_of[name].add(pid)
    return {name: tuple(sorted(pids)) for name, pids in pids_of.items()}
