#!/usr/bin/env bash
# Runs the README's two commands in a Debian 12 with nothing installed: makes a minimal root in a folder,
# clones the committed state of this repository into it and starts scripts/test.sh and scripts/demo.sh there.
# Needs root and debootstrap. This machine's settings for apt and pip (mirror, proxy, certificates) are
# carried over, so that it works wherever they do.
# usage: scripts/check_bare_debian.sh FOLDER [COMMAND...]    (default: scripts/test.sh scripts/demo.sh)
# FOLDER must not exist; it is left behind for a look.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,7s/^# //p' "$0" >&2 && exit 2; }
target=$(realpath -m "$1")
shift
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

commands=("$@")
[ $# -gt 0 ] || commands=(scripts/test.sh scripts/demo.sh)
[ "$(id -u)" -eq 0 ] || die "needs root, for chroot"
command -v debootstrap >/dev/null || die "needs debootstrap (apt-get install debootstrap)"
[ ! -e "$target" ] || die "$target is there already"

first_mirror() {
  {
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null || true
    sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' /etc/apt/sources.list 2>/dev/null || true
  } | grep -m1 /debian || true  # none: debootstrap's own default
}

copy_if_there() {
  local path
  for path in "$@"; do
    [ -e "$path" ] || continue
    mkdir -p "$target$(dirname "$path")"
    cp -aL "$path" "$target$(dirname "$path")/"
  done
}

mirror=$(first_mirror)
say "A minimal Debian 12 in $target"
quietly debootstrap --variant=minbase --include=ca-certificates,git bookworm "$target" ${mirror:+"$mirror"}

# How apt and pip reach the world from here.
apt-config dump Acquire | grep -v '^Acquire::Languages' >"$target/etc/apt/apt.conf.d/90host" || true
copy_if_there /etc/apt/auth.conf /etc/apt/auth.conf.d /etc/pip.conf /usr/local/share/ca-certificates \
  "$HOME/.config/pip" /etc/resolv.conf /etc/hosts
settings=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI=true)
while IFS= read -r setting; do settings+=("$setting"); done < <(env | grep -iE '^(https?|no|ftp)_proxy=' || true)
in_root() { env -i "${settings[@]}" chroot "$target" "$@"; }
quietly in_root update-ca-certificates

mounted=()
unmount() {
  local i
  for ((i = ${#mounted[@]} - 1; i >= 0; --i)); do umount "${mounted[i]}"; done
}
trap unmount EXIT
mount -t proc proc "$target/proc" && mounted+=("$target/proc")
for device in null zero full random urandom tty; do
  [ -e "$target/dev/$device" ] || cp -a "/dev/$device" "$target/dev/"
done

git -c advice.detachedHead=false clone --quiet --no-hardlinks "$root" "$target/root/matryoshka"
for command in "${commands[@]}"; do
  say "In the bare Debian: $command"
  started=$SECONDS
  # shellcheck disable=SC2016 # the inner shell expands it
  in_root bash -c 'cd /root/matryoshka && exec "$0"' "$command" </dev/null
  say "$command took $((SECONDS - started)) s"
done
