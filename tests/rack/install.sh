#!/bin/bash
# Installs what the rack and a build need and this machine lacks (Debian or Ubuntu, root). Says nothing when nothing is missing.
set -euo pipefail
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need cc gcc
need c++ g++
need systemd-nspawn systemd-container
need dbus-daemon dbus
need nft nftables
need ip iproute2
need nsenter util-linux
need pgrep procps
need mkfs.ext4 e2fsprogs
need python3 python3
# The store on etcd: its client's build reads google/protobuf/*.proto, and its tests run real members.
need protoc protobuf-compiler
need etcd etcd-server
need etcdctl etcd-client
# A bare Debian, into which packages are installed.
need debootstrap debootstrap
need dpkg-deb dpkg
need readelf binutils
# Clients of our own answer to its key API.
need curl curl
/usr/bin/python3 -c 'import etcd' 2>/dev/null || missing+=(python3-etcd)
[ -e /usr/include/google/protobuf/empty.proto ] || missing+=(libprotobuf-dev)
[ -e /lib/systemd/systemd ] || missing+=(systemd)
[ -e /usr/share/doc/libc6-dev ] || missing+=(libc6-dev)
compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || missing+=(libfaketime)
[ ${#missing[@]} = 0 ] && exit
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null
