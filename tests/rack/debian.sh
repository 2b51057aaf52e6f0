#!/bin/bash
# A bare Debian for the rack's hosts, made once by debootstrap and kept: systemd, D-Bus, python3 (which the examples run), nothing else.
#
#   tests/rack/debian.sh DIR       makes it, if it is not there; HX_ROOTFS=DIR tests/rack/hosts.sh up 3
#
# DEBIAN_MIRROR is where packages come from. Needs root, debootstrap, and a way to the mirror.
set -euo pipefail
dir=${1:?which folder?}
[ ! -e "$dir/.whole" ] || exit 0
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3 bookworm "$dir" "$mirror" >"$dir.log" 2>&1 ||
  { tail -n 20 "$dir.log" >&2; rm -rf "$dir"; exit 1; }
rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/*
touch "$dir/.whole"
