#!/bin/bash
# Installs the helper as `wiremesh install --systemd` says, starts it by systemd, and runs a node in each mode.
#   unit-files.sh WIREMESH WIREMESH-NETADMIN     within systemd.sh; a line per fact
set -eu
cp "$1" /usr/local/bin/wiremesh
cp "$2" /tmp/wiremesh-netadmin
wiremesh install --systemd --helper /tmp/wiremesh-netadmin
systemd-sysusers
systemd-tmpfiles --create wiremesh.conf
systemctl daemon-reload
systemctl enable --now wiremesh-netadmin

helper() { systemctl show --property MainPID --value wiremesh-netadmin; }
settled() { for _ in $(seq 100); do "$@" && return; sleep 0.3; done; echo "never: $*"; return 1; }
settled test -S /run/wiremesh/netadmin.sock
grep -E '^(CapEff|CapPrm|CapBnd|CapAmb|NoNewPrivs|Seccomp):' "/proc/$(helper)/status" | sed 's/^/helper /'
stat --format 'socket %U:%G %a' /run/wiremesh/netadmin.sock
stat --format 'uapi folder %U:%G %a' /run/wireguard

gid=$(getent group wiremesh | cut -d: -f3)
as_user() { setpriv --reuid 65534 --regid "$1" --clear-groups "${@:2}"; }
there() { [ -e "/sys/class/net/wm0" ]; }
gone() { ! there; }
for mode in tun kernel; do
  folder=$(mktemp -d /tmp/node.XXXX)
  cd "$folder"
  (umask 077; wg genkey > key)
  printf '[node]\nkey = "key"\nlisten = ["0.0.0.0:51999"]\nstate-dir = "state"\ncontrol-socket = "control"\n' > node.toml
  chown -R 65534 .
  as_user 65534 wiremesh up --config node.toml --mode "$mode" > refused 2>&1 || true
  echo "$mode refused: $(head -1 refused)"
  # Not by the function: kill would reach its subshell.
  setpriv --reuid 65534 --regid "$gid" --clear-groups wiremesh up --config node.toml --mode "$mode" > log 2>&1 & node=$!
  settled there
  echo "$mode up: $(as_user "$gid" wiremesh status --socket control | grep '^interface')"
  before=$(cat /sys/class/net/wm0/ifindex)
  systemctl restart wiremesh-netadmin
  settled eval 'there && [ "$(cat /sys/class/net/wm0/ifindex)" != '"$before"' ]'
  echo "$mode back after a restart of the unit"
  kill -KILL "$node"
  settled gone
  echo "$mode gone after kill -9"
done
