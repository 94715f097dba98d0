#!/bin/bash
# A guest with the real kernel's WireGuard.  Needs root and setup.sh.
#   vm.sh up           boots it on a TAP in the namespace $LAB_NETNS (made here if it is missing)
#   vm.sh exec CMD...  runs CMD in it as root; stdin, stdout and exit code pass through
#   vm.sh down         powers it off and removes what "up" made
# Names and addresses: env.sh.
set -eu
. "$(dirname "$0")/env.sh"

boot() {  # the guest in the foreground, its console in $CTL/console
  # An emulated CPU measures its TSC by a busy host: the guest's clock then runs up to six times too fast.
  local accel=(-accel "tcg,thread=multi,tb-size=512" -cpu max) clock=clocksource=hpet
  [ "$(cat "$CACHE/accel")" = kvm ] && accel=(-accel kvm -cpu host,-arch-capabilities) clock=tsc=reliable
  exec ip netns exec "$LAB_NETNS" qemu-system-x86_64 "${accel[@]}" -M q35 -smp "$LAB_CPUS" -m "$LAB_MEMORY_MIB" \
    -display none -nodefaults -no-user-config -no-reboot -serial stdio \
    -kernel "$CACHE/kernel/vmlinux" -initrd "$CACHE/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 reboot=t mitigations=off $clock lab.dir=$LAB lab.cache=$CACHE lab.ip4=$LAB_GUEST4 lab.ip6=$LAB_GUEST6" \
    -device virtio-rng-pci \
    -fsdev "local,id=r,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=r,mount_tag=hostroot \
    -fsdev "local,id=l,path=$CTL,security_model=none" -device virtio-9p-pci,fsdev=l,mount_tag=lab \
    -netdev "tap,id=n,ifname=$LAB_TAP,script=no,downscript=no" -device virtio-net-pci,netdev=n,romfile= \
    </dev/null >"$CTL/console" 2>&1
}

in_guest() {  # dbclient asks about the host key once per call; the key is thrown away with the guest
  ip netns exec "$LAB_NETNS" dbclient -y -y -i "$CACHE/userkey" "root@$LAB_GUEST4" "$@" \
    2> >(grep -v -e 'skipping hostkey' -e '^$' >&2)
}

case ${1:-} in
up)
  [ -e "$CACHE/accel" ] || { echo "run $LAB/setup.sh first" >&2; exit 2; }
  mkdir -p "$CTL"
  [ -e "$CTL/pid" ] && kill -0 "$(cat "$CTL/pid")" 2>/dev/null && { echo "already up"; exit 0; }
  rm -f "$CTL"/*
  cp "$CACHE/hostkey" "$CACHE/userkey.pub" "$CTL/"
  ip netns list | grep -qw "$LAB_NETNS" || { ip netns add "$LAB_NETNS"; touch "$CTL/made-netns"; }
  ip -n "$LAB_NETNS" link set lo up
  ip -n "$LAB_NETNS" tuntap add "$LAB_TAP" mode tap
  ip -n "$LAB_NETNS" addr replace "$LAB_HOST4/24" dev "$LAB_TAP"
  ip -n "$LAB_NETNS" addr replace "$LAB_HOST6/64" dev "$LAB_TAP" nodad
  ip -n "$LAB_NETNS" link set "$LAB_TAP" up
  (boot) & pid=$!
  echo $pid >"$CTL/pid"; disown
  for _ in $(seq 600); do
    [ -e "$CTL/ready" ] && in_guest true 2>/dev/null && { echo "up: $(cat "$CACHE/accel"), pid $pid"; exit 0; }
    kill -0 $pid 2>/dev/null || break
    sleep 0.2
  done
  echo "the guest did not come up; the end of its console:" >&2
  tail -30 "$CTL/console" >&2
  kill $pid 2>/dev/null || true
  exit 1 ;;
exec) shift; in_guest "$@" ;;
down)
  [ -e "$CTL/pid" ] || exit 0
  pid=$(cat "$CTL/pid")
  timeout 5 "$0" exec 'busybox poweroff -f &' >/dev/null 2>&1 || true
  for _ in $(seq 25); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill "$pid" 2>/dev/null || true
  ip -n "$LAB_NETNS" link del "$LAB_TAP" 2>/dev/null || true
  [ -e "$CTL/made-netns" ] && ip netns del "$LAB_NETNS"
  rm -rf "$CTL" ;;
*) sed -n '2,6p' "$0" >&2; exit 2 ;;
esac
