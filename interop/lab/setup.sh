#!/bin/sh
# Fetches what the guest with the real kernel needs: Debian packages, Debian's kernel (unpacked, not
# installed), a small initramfs, throw-away ssh keys.  Needs root.  Safe to repeat: it does only what is missing.
set -eu
. "$(dirname "$0")/env.sh"
need="qemu-system-x86 busybox-static cpio kmod zstd xz-utils iproute2 iputils-ping wireguard-tools dropbear-bin python3 strace \
  util-linux nftables wireguard-go iperf3 socat"
missing=
for p in $need; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >/dev/null
fi
mkdir -p "$CACHE"
cd "$CACHE"

# 1. The distribution's own kernel, with its own WireGuard module.
if [ ! -e kernel/ok ]; then
  k=$(apt-cache depends linux-image-amd64 | awk '/Depends:/{print $2; exit}')
  rm -rf kernel; mkdir kernel
  (cd kernel && apt-get download "$k" 2>/dev/null && dpkg-deb -x "$k"_*.deb . && rm -f "$k"_*.deb)
  v=$(ls kernel/lib/modules); echo "$v" >kernel/version
  mv "kernel/boot/vmlinuz-$v" kernel/vmlinuz
  depmod -b kernel "$v"
  # Unpacked in advance: an emulated CPU takes long to decompress it.
  python3 "$LAB/extract-vmlinux.py" kernel/vmlinuz kernel/vmlinux || cp kernel/vmlinuz kernel/vmlinux
  touch kernel/ok
fi

# 2. An initramfs with only the modules that reach the 9p root.
v=$(cat kernel/version)
rm -rf initramfs; mkdir -p initramfs/bin initramfs/mod
cp /bin/busybox initramfs/bin/busybox
cp "$LAB/initramfs-init.sh" initramfs/init; chmod +x initramfs/init
for m in virtio_pci 9pnet_virtio 9p overlay; do
  modprobe -d kernel -S "$v" --show-depends "$m" | awk '$1=="insmod"{print $2}'
done | awk '!seen[$0]++' >initramfs/mod/list
while read -r f; do cp "$f" initramfs/mod/; done <initramfs/mod/list
sed -i 's,.*/,,' initramfs/mod/list
(cd initramfs && find . | cpio -o -H newc --quiet) >initrd.new
mv initrd.new initrd.img

# 3. Keys for the commands that the host runs in the guest.
[ -e hostkey ] || dropbearkey -t ed25519 -f hostkey >/dev/null 2>&1
[ -e userkey ] || dropbearkey -t ed25519 -f userkey >/dev/null 2>&1
dropbearkey -y -f userkey | grep '^ssh-' >userkey.pub

# 4. Does this machine's /dev/kvm run a stock kernel?  Nested ones often do not; then the CPU is emulated.
if [ ! -e accel ]; then
  if [ -w /dev/kvm ] && timeout -k 1 10 qemu-system-x86_64 -accel kvm -cpu max,-arch-capabilities -M q35 -m 512 \
    -display none -nodefaults -serial stdio -no-reboot -kernel kernel/vmlinux -initrd initrd.img \
    -append "console=ttyS0 quiet panic=-1 lab.probe" </dev/null 2>/dev/null | grep -q lab-probe-ok
  then echo kvm >accel; else echo tcg >accel; fi
fi
echo "lab ready: kernel $v, $(cat accel)"
