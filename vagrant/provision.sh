#!/bin/sh
# Runs on each machine as root, at its first `vagrant up` and whenever `vagrant provision` is said. Vagrant has copied to /tmp/coreinit what
# is installed here. The argument is coreinitd's configuration, in base64; on Flatcar, Ignition has written it already.
set -eu
from=/tmp/coreinit
. /etc/os-release
user=${SUDO_USER:?run by sudo}
home=$(getent passwd "$user" | cut -d: -f6)

if [ "$ID" = flatcar ]; then
  if [ ! -s /etc/coreinit/coreinitd.toml ]; then
    echo "Ignition has not read what the Vagrantfile gave it; is the box older than Flatcar's support for that? vagrant/README.md" >&2
    exit 1
  fi
  mkdir -p /opt/bin
  install -m 755 "$from/coreinitd" "$from/corectl" /opt/bin/
  install -m 644 "$from/coreinitd.service" /etc/systemd/system/coreinitd.service
  rm -rf "$home/examples"
  cp -r "$from/examples" "$home/examples"
  chown -R "$user:" "$home/examples"
  systemctl daemon-reload
  systemctl enable --quiet coreinitd.service
  systemctl restart coreinitd.service
else
  mkdir -p /etc/coreinit
  install -m 600 -o root -g root "$from/secret" /etc/coreinit/secret
  echo "$1" | base64 -d >/etc/coreinit/coreinitd.toml
  # A machine just booted may be at its daily upgrade.
  get() {
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --reinstall --allow-downgrades \
      -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
  }
  # The package starts the daemon, or restarts it, with the configuration that is there.
  get "$from/coreinit.deb" || { apt-get update -q && get "$from/coreinit.deb"; }
  # Two of the examples are written in it.
  command -v python3 >/dev/null || { apt-get update -q && get python3; }
  usermod -a -G coreinit "$user"
  ln -sfn /usr/share/doc/coreinit/examples "$home/examples"
fi
rm -rf "$from"
