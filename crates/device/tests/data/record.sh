#!/bin/bash
# Records the packets that replay.pcap has: ordinary programs between two namespaces, without any offload, with losses.
#   record.sh OUTPUT        as root; iproute2, ethtool, nftables, tcpdump, iperf3, curl, python3, ping
set -eu
a=wmrec$$a b=wmrec$$b folder=$(mktemp -d)
# Ends what runs in the namespaces, and them.
finish() { for n in $a $b; do ip netns pids $n | xargs -r kill; ip netns del $n; done; rm -rf "$folder"; }
for n in $a $b; do ip netns add $n; ip -n $n link set lo up; done
trap finish EXIT
ip link add v0 mtu 1420 netns $a type veth peer name v1 mtu 1420 netns $b
number=1
for pair in "$a v0" "$b v1"; do
  read -r n dev <<<"$pair"
  ip netns exec $n ethtool -K $dev tx off rx off tso off gso off gro off >/dev/null
  ip netns exec $n sysctl -qw net.ipv4.tcp_ecn=1
  ip -n $n addr add 10.9.0.$number/24 dev $dev
  ip -n $n addr add fd00:9::$number/64 dev $dev nodad
  ip -n $n link set $dev up
  number=2
done
# One packet in 40 is lost behind the recorder: gaps, SACK blocks and repetitions.
ip netns exec $b nft 'add table netdev t; add chain netdev t c { type filter hook ingress device v1 priority 0; }; add rule netdev t c numgen random mod 40 0 drop'
head -c 30000 /dev/urandom > "$folder/file"
ip netns exec $a tcpdump -q -U -w "$1" -i v0 2>/dev/null & sleep 1
(cd "$folder"; exec ip netns exec $b python3 -m http.server 80 --bind :: >/dev/null 2>&1) &
ip netns exec $b iperf3 -s -D
sleep 1
in_a() { ip netns exec $a "$@" >/dev/null || echo "failed: $*"; }
in_a curl -sS http://10.9.0.2/file
in_a curl -sS 'http://[fd00:9::2]/file'
in_a iperf3 -c 10.9.0.2 -P 3 -n 12K
in_a iperf3 -c fd00:9::2 -R -n 24K
in_a iperf3 -c fd00:9::2 -u -n 20K -l 1000 -b 2M
in_a iperf3 -c 10.9.0.2 -u -n 20K -l 1392 -b 5M
in_a ping -q -c 3 -i 0.1 -s 3000 fd00:9::2
in_a ping -q -c 3 -i 0.1 -s 3000 10.9.0.2
in_a iperf3 -c 10.9.0.2 -u -n 8K -l 4000 -b 5M
sleep 0.5
