#!/bin/sh
# The lab guest's first process. Switches come from the kernel command line, which the kernel hands over as environment:
#   scsi=1    agent=qga|relay|none    agent_args=--ARG+--ARG    hook=ok|fail|fail_thaw|swallow|hang|hang_thaw    loop=1    meter=off|KEY=VALUE+KEY=VALUE
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
AGENT_PORT=/dev/virtio-ports/org.qemu.guest_agent.0
RELAY_PORT=/dev/virtio-ports/org.stillpoint.relay

mount_system() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts /dev/virtio-ports
    mount -t devpts devpts /dev/pts
    mount -t tmpfs run /run
    mount -t tmpfs tmp /tmp
    hostname "${name:-lab}"
}

load_modules() {
    while read -r module; do
        insmod "/modules/$module" || echo "LAB module $module did not load"
    done < "/modules/$1"
}

# No udev here: the names of the ports come from sysfs.
name_ports() {
    for port in /sys/class/virtio-ports/*; do
        [ -s "$port/name" ] && ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
    done
}

mount_point() {
    if [ "$1" = vda ]; then echo /data; else echo "/data-$1"; fi
}

mount_disks() {
    for disk in /sys/block/vd* /sys/block/sd*; do
        disk=${disk##*/}
        [ -b "/dev/$disk" ] || continue
        point=$(mount_point "$disk")
        mkdir -p "$point"
        mount -t ext4 "/dev/$disk" "$point" 2> /dev/null || mount -t ext4 -o ro "/dev/$disk" "$point" 2> /dev/null || rmdir "$point"
    done
}

# An ext4 inside a file of /data: freezing /data below it is the known deadlock that preflight warns of.
mount_loop() {
    [ -e /data/loop.img ] || zcat /loop.img.gz > /data/loop.img
    mkdir -p /data-loop
    losetup /dev/loop0 /data/loop.img && mount -t ext4 /dev/loop0 /data-loop || echo "LAB loop mount failed"
}

start_meters() {
    while read -r _ point type options _; do
        case "$type,$options" in ext4,rw*) stallmeter "$point" $(echo "$1" | tr + ' ') & ;; esac
    done < /proc/mounts
}

install_hook() {
    hook_path=/etc/qemu/fsfreeze-hook
    failing=none
    hanging=none
    case $1 in
        fail) failing=freeze ;;
        fail_thaw) failing=thaw ;;
        hang) hanging=freeze ;;
        hang_thaw) hanging=thaw ;;
        swallow) # Debian's own hook stays, and hides that the script below fails
            hook_path=/etc/qemu/fsfreeze-hook.d/50-failing
            failing=freeze
            ;;
    esac
    printf '#!/bin/sh\necho "HOOK $1" > /dev/console\n[ "$1" != %s ] || exit 3\n[ "$1" != %s ] || exec sleep 3600\n' \
        $failing $hanging > $hook_path
    chmod 755 /etc/qemu/fsfreeze-hook $hook_path
}

serve_agent() {
    hook_args=
    [ -z "$hook" ] || hook_args="-F/etc/qemu/fsfreeze-hook"
    while :; do
        qemu-ga -m virtio-serial -p $AGENT_PORT -t /run -l /run/qemu-ga.log $hook_args $(echo "$agent_args" | tr + ' ')
        echo "LAB qemu-ga ended with $?"
        sleep 0.2
    done
}

# Copies bytes between the agent port and a second port whose other end is a program on the host. Both are opened once, as a
# closed port looks to libvirt like an agent that went away; a read ends while nobody is connected, so it is begun again.
serve_relay() {
    exec 3<> $AGENT_PORT 4<> $RELAY_PORT
    while :; do cat <&3 >&4; sleep 0.02; done &
    while :; do cat <&4 >&3; sleep 0.02; done
}

serve() {
    case "${agent:-qga}" in
        qga) serve_agent ;;
        relay) serve_relay ;;
        *) while :; do sleep 3600; done ;;
    esac
}

# Until this line nothing has run, and no disk is mounted.
echo "LAB boots"
mount_system
load_modules order
[ -z "$scsi" ] || load_modules order.scsi
name_ports
mount_disks
[ -z "$loop" ] || mount_loop
[ -z "$hook" ] || install_hook "$hook"
[ "$meter" = off ] || start_meters "$meter"
acpid -f > /dev/null 2>&1 &
# On a line of its own: a reset may have cut the last line of the system before.
printf '\nLAB ready agent=%s\n' "${agent:-qga}"
serve
