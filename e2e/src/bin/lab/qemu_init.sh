#!/bin/busybox sh
# First process of QEMU's guest, in an initramfs with busybox and the modules for
# the host's root and the network card: mounts that root, read-only, and goes on
# from there.
for module in /modules/*; do
    /bin/busybox insmod "$module"
done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /root
/bin/busybox mount -t devtmpfs devtmpfs /root/dev
exec /bin/busybox switch_root /root "$LAB_INIT"
