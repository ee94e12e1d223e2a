#!/bin/bash
# The first process of the guest. Its root is the host's, read-only. This script
# makes it writable (in memory) and loads IPVS; `lab guest` does the rest.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trap 'echo "init: line $LINENO failed"; busybox poweroff -f' ERR

lab=/run/ipvs-lab

# All that differs between the machines: how the lab's folder is shared, the
# name of the card, and where the program's output goes.
case $LAB_KERNEL in
uml*)
    share=(-t hostfs -o "$lab" none)
    card=vec0
    output() { echo /dev/tty1; }
    ;;
qemu)
    share=(-t 9p -o trans=virtio,version=9p2000.L,msize=512000 lab)
    card=eth0
    # There is one such port; the kernel chooses its device.
    output() { echo /dev/vport*; }
    ;;
esac

mount -t proc proc /proc
mount --bind "$lab/modules-$LAB_ROLE" /lib/modules
modprobe overlay

# What a program writes stays in memory and is gone with the guest, and every
# file of the host can be seen.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount --rbind /proc proc
mount --rbind /dev dev
mount --bind "$lab/modules-$LAB_ROLE" lib/modules
mount "${share[@]}" ".$lab"
pivot_root . mnt
cd /
umount -l /mnt

mount -t sysfs sysfs /sys
# Under QEMU, the kernel boots with one processor, because it patches its own
# code during the boot. A second emulated processor may run a half-patched
# instruction, which is a kernel panic.
for processor in /sys/devices/system/cpu/cpu[1-9]*/online; do
    [ ! -e "$processor" ] || echo 1 >"$processor"
done
mkdir -p /dev/pts /dev/shm /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# The host's namespaces have their names in that folder.
mount -t tmpfs tmpfs /run/netns

# A node keeps Debian's defaults: its sysctls, and the modules that it loads.
if [ "$LAB_ROLE" = guest ]; then
    # A new namespace starts as on a new machine, not as a copy of the first one.
    echo 2 >/proc/sys/net/core/devconf_inherit_init_net

    # Schedulers, bridges, tunnels, iptables: the kernel loads them on demand, as
    # it does on a director. ip_vs_lblc and ip_vs_lblcr are loaded here: on demand
    # they can deadlock: the kernel holds the mutex of ip_vs while it loads a
    # scheduler, each of these modules waits for network namespaces that are being
    # removed, and their removal waits for the mutex. Seen on 6.1 and 6.12; all
    # three then wait forever.
    modprobe --all ip_vs ip_vs_lblc ip_vs_lblcr
fi

ip link set "$card" name wire

output=$(output)
test -c "$output"
read -r program <"$lab/program"
"$program" "$LAB_ROLE" </dev/null >"$output" 2>&1 || true
sync
busybox poweroff -f
