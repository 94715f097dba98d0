#!/bin/bash
# Boots a systemd beside the guest's own init, on a copy of its files that is thrown away, and runs a script there.
#   systemd.sh SCRIPT ARGS...    in the guest, as root; output and exit code are the script's
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
folder=$(mktemp -d /run/systemd-lab.XXXX)
mount -t tmpfs tmpfs "$folder"
mkdir "$folder"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
# What the host has enabled is none of ours.
rm -rf "$folder"/root/etc/systemd/system/*
cat > "$folder/root/boot.sh" <<'BOOT'
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }
export container=other
exec /usr/lib/systemd/systemd --system --unit=multi-user.target
BOOT
setsid unshare --pid --fork --mount --cgroup --uts chroot "$folder/root" /bin/bash /boot.sh \
  >"$folder/console" 2>&1 </dev/null & outer=$!
for _ in $(seq 300); do
  inner=$(pgrep -P "$outer" || true)
  enter=(nsenter --target "${inner:-0}" --pid --mount --cgroup --uts --root --wd)
  state=$([ -n "$inner" ] && "${enter[@]}" systemctl is-system-running 2>/dev/null || true)
  case $state in running | degraded) break ;; esac
  sleep 0.2
done
case $state in
running | degraded) ;;
*) echo "systemd did not come up: $state" >&2; tail -20 "$folder/console" >&2; exit 1 ;;
esac
status=0
"${enter[@]}" "$@" || status=$?
kill -KILL "$inner"
exit "$status"
