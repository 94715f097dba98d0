#!/bin/sh
# Second program in the guest, from the host's file tree: kernel modules, the link, an ssh server.
# /run/lab is the control folder of vm.sh.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
arg() { sed -n "s/.*lab\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
umount -l /proc 2>/dev/null
mount -t proc proc /proc; mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm
# Nothing lies over /tmp: the tests may have been built there, and "/" can be written to already.
mount -t tmpfs run /run; mkdir -p /run/lab /run/home; mkdir -m 1777 /run/tmp
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 lab /run/lab
mkdir -p /lib/modules; mount --bind "$(arg cache)/kernel/lib/modules" /lib/modules
for m in virtio_net virtio_rng wireguard tun; do modprobe -q $m; done
chmod 666 /dev/net/tun      # as udev does
hostname wiremesh-lab; ip link set lo up
sysctl -qw net.core.rmem_max=7500000 net.core.wmem_max=7500000 2>/dev/null
n=$(ls /sys/class/net | grep -m1 -E '^(eth|en)')
ip link set "$n" name link0; ip link set link0 up
ip addr add "$(arg ip4)/24" dev link0; ip addr add "$(arg ip6)/64" dev link0 nodad
# The host's own home folder stays out of it: shell start-up files cost seconds on an emulated CPU.
sed -i 's,^root:\([^:]*:[^:]*:[^:]*:[^:]*\):.*,root:\1:/run/home:/bin/sh,' /etc/passwd
mkdir -m 700 /run/home/.ssh
cp /run/lab/userkey.pub /run/home/.ssh/authorized_keys; chmod 600 /run/home/.ssh/authorized_keys
cp /run/lab/hostkey /run/hostkey
cut -d' ' -f1 /proc/uptime >/run/lab/ready
ulimit -n 1024        # dropbear closes every possible descriptor for each session
exec dropbear -F -E -s -r /run/hostkey -p 22 -P /run/dropbear.pid 2>/run/lab/sshd.log
