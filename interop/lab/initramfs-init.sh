#!/bin/busybox sh
# First program in the guest: mounts the host's "/" read-only over 9p, lays a tmpfs over it, and goes
# on with guest-init.sh from there.  Every program of the host is there and nothing on it can change.
bb() { /bin/busybox "$@"; }
bb mkdir -p /proc /dev /lower /upper /new
bb mount -t proc proc /proc
bb mount -t devtmpfs dev /dev
for m in $(bb cat /mod/list); do bb insmod "/mod/$m"; done
if bb grep -q lab.probe /proc/cmdline; then echo lab-probe-ok; bb poweroff -f; bb reboot -f; fi
lab=$(bb sed -n 's/.*lab.dir=\([^ ]*\).*/\1/p' /proc/cmdline)
bb mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 hostroot /lower || bb poweroff -f
bb mount -t tmpfs upper /upper
bb mkdir /upper/files /upper/work
bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new
exec /bin/busybox switch_root /new "$lab/guest-init.sh"
