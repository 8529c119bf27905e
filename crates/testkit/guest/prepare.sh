#!/bin/bash
# Builds what guest tests boot, once: DIR/vmlinuz and DIR/base.cpio.gz.
#
#   prepare.sh DIR
#
# The kernel and its modules are those of Debian's linux-image-amd64 (the cloud image lacks 9p). The
# initramfs holds busybox and an init that takes the host's root, over virtio-9p and read-only, as the
# lower layer of an overlay: so every tool of the host runs in the guest. Then it runs /g.cmd, writes
# its output to the virtio port g.out and its status to g.rc, and powers off.
set -euo pipefail
CACHE=$1
SELF=$(readlink -f "$0")
mkdir -p "$CACHE/deb"
exec 9>"$CACHE/lock"
flock 9
[ -s "$CACHE/base.cpio.gz" ] && [ "$CACHE/base.cpio.gz" -nt "$SELF" ] && exit 0

MODULES="virtio_pci virtio_blk virtio_net virtio_console virtio_rng 9p 9pnet_virtio overlay nbd
  ext4 xfs btrfs loop"

cd "$CACHE/deb"
package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2 }' | grep '^linux-image-' | head -1)
if ! ls "${package}"_*.deb >/dev/null 2>&1; then
  apt-get download -qq "$package" >/dev/null || { echo "can't download Debian's $package" >&2; exit 1; }
fi
rm -rf x
dpkg -x "${package}"_*.deb x
version=$(ls x/lib/modules)
depmod -b "$PWD/x" "$version"
cp "x/boot/vmlinuz-$version" "$CACHE/vmlinuz"

image=$CACHE/initramfs
rm -rf "$image"
mkdir -p "$image"/{bin,proc,sys,dev,host,overlay,new,tmp,modules,mnt}
cp "$(command -v busybox)" "$image/bin/busybox"
for module in $MODULES; do
  modprobe -d "$PWD/x" -S "$version" --show-depends "$module"
done | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" "$image/modules/"
  basename "$file" >>"$image/modules/list"
done

cat >"$image/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B --install -s /bin; export PATH=/bin
while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/list
ip link set lo up
ip link set eth0 up 2>/dev/null && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
for port in /sys/class/virtio-ports/*; do
  case $(cat $port/name) in g.out) OUT=/dev/${port##*/};; g.rc) RC=/dev/${port##*/};; esac
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 hostroot /host
mount -t tmpfs -o size=80% tmpfs /overlay; mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work overlay /new
for dir in proc sys dev; do mount --move /$dir /new/$dir; done
mkdir -p /new/dev/pts /new/dev/shm /new/g /new/mnt
mount -t devpts devpts /new/dev/pts; mount -t tmpfs shm /new/dev/shm
mount -t tmpfs tmp /new/tmp; mount -t tmpfs run /new/run
cp /g.cmd /new/g/cmd
chroot /new /usr/bin/env HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /bin/bash /g/cmd >/new$OUT 2>&1 </new/dev/null
echo $? >/new$RC
sync; poweroff -f
INIT
chmod +x "$image/init"
(cd "$image" && find . | cpio -o -H newc --quiet | gzip -1) >"$CACHE/base.cpio.gz.new"
mv "$CACHE/base.cpio.gz.new" "$CACHE/base.cpio.gz"
