#!/bin/sh
# What qemu-ga's guest-shutdown and the ACPI power button run: leaves the filesystems clean.
action="poweroff -f"
for word in "$@"; do
    [ "$word" != -r ] || action="reboot -f"
done
killall stallmeter 2> /dev/null
for point in $(grep ' ext4 ' /proc/mounts | cut -d ' ' -f 2 | tac); do
    for _ in 1 2 3 4 5; do umount "$point" && break; sleep 0.1; done
done
$action
