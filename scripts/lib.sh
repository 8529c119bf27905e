# Shared by the scripts in this folder and by .ci/run: `. scripts/lib.sh`.
#
# It finds the tools that the real-client tests need, and installs their Debian packages when that
# is possible (root, apt and a reachable mirror). It never fails for a missing tool: the tests that
# need it skip themselves and say which package to install.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# One line per tool: what is looked up, and the Debian package that holds it.
TOOLS='
fio fio
nbdinfo libnbd-bin
nbdcopy libnbd-bin
nbdfuse libnbd-bin
nbdsh python3-libnbd
nbdkit nbdkit
qemu-img qemu-utils
qemu-io qemu-utils
qemu-nbd qemu-utils
qemu-system-x86_64 qemu-system-x86
busybox busybox-static
cpio cpio
depmod kmod
fusermount3 fuse3
losetup mount
mkfs.ext4 e2fsprogs
mkfs.xfs xfsprogs
mkfs.btrfs btrfs-progs
strace strace
setpriv util-linux
python3-venv python3-venv
'

say() { printf '== %s\n' "$*"; }

# help_wanted ARGUMENT...: with --help or -h first, print the head comment of the script, and end.
help_wanted() {
  case ${1:-} in --help | -h) ;; *) return 0 ;; esac
  sed -n '2,/^[^#]/s/^#\( \|$\)//p' "$0"
  exit 0
}

# have TOOL: is it on the path? Debian keeps file-system tools in sbin, which a user's path lacks.
have() {
  case $1 in
    # Debian has it apart from Python, and it is no program.
    python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# tools_missing: one "TOOL PACKAGE" a line.
tools_missing() {
  local tool package
  while read -r tool package; do
    [ -n "$tool" ] || continue
    have "$tool" || printf '%s %s\n' "$tool" "$package"
  done <<<"$TOOLS"
}

# qemu_packages PACKAGE...: the same list, with QEMU's packages pinned to one version.
# qemu-utils may come from backports, where the emulator's package is not on offer; the two must
# then be brought to the version that the archive has for both, or apt would remove one of them.
qemu_packages() {
  local version package
  version=$(apt-cache madison qemu-system-x86 2>/dev/null | awk 'NR == 1 { print $3 }')
  for package in "$@"; do
    case $package in
      qemu-system-x86)
        if [ -n "$version" ] && apt-cache madison qemu-utils | grep -qF " $version "; then
          printf '%s\n' "qemu-system-x86=$version" "qemu-utils=$version"
        else
          printf '%s\n' qemu-system-x86 qemu-utils
        fi ;;
      *) printf '%s\n' "$package" ;;
    esac
  done | sort -u
}

# tools_ensure: install what is missing if that can be done, else name it.
tools_ensure() {
  local missing packages
  missing=$(tools_missing)
  if [ -z "$missing" ]; then say "every tool of the real-client tests is here"; return 0; fi
  mapfile -t packages < <(awk '{ print $2 }' <<<"$missing" | sort -u)
  if [ "$(id -u)" = 0 ] && have apt-get && [ -z "${SKERRY_NO_INSTALL:-}" ]; then
    say "installing: ${packages[*]}"
    apt-get update -qq >/dev/null 2>&1 || true
    mapfile -t packages < <(qemu_packages "${packages[@]}")
    if ! apt_install "${packages[@]}"; then
      local package   # One package that can't be had must not cost all the others.
      for package in "${packages[@]}"; do
        case $package in qemu-utils=*) continue ;; qemu-system-x86=*) package="$package qemu-utils=${package#*=}" ;; esac
        # shellcheck disable=SC2086  # the pair is two arguments
        apt_install $package || say "could not install $package"
      done
    fi
    missing=$(tools_missing)
  fi
  [ -z "$missing" ] && return 0
  say "missing, so the tests that need them will be skipped (tool, Debian package):"
  sed 's/^/     /' <<<"$missing"
  say "to install: apt-get install --no-install-recommends $(awk '{ print $2 }' <<<"$missing" | sort -u | tr '\n' ' ')"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --allow-downgrades \
    --no-install-recommends "$@" >"${TMPDIR:-/tmp}/skerry-apt.$$" 2>&1
  local status=$?
  [ $status = 0 ] || tail -5 "${TMPDIR:-/tmp}/skerry-apt.$$" >&2
  rm -f "${TMPDIR:-/tmp}/skerry-apt.$$"
  return $status
}
