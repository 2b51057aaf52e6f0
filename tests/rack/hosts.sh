#!/bin/bash
# hosts.sh - a rack of throw-away hosts on one machine, each with its own systemd as PID 1, D-Bus system bus,
# journal, address and disk.  Needs root and a Linux with overlayfs; no systemd has to run outside.
#   apt-get install -y --no-install-recommends systemd-container nftables iproute2 procps e2fsprogs python3 libfaketime
#
#   up N                         make the world and hosts h1..hN (10.77.0.11, .12, ...); returns when all have booted
#   down                         end every process, mount, namespace and cgroup of the world
#   status                       a line per host: name, on|paused|off, address, PID 1 as seen from outside
#   exec HOST CMD...             run CMD in HOST (stdin, stdout and exit status passed on)
#   sh CMD...                    run CMD on the switch, address 10.77.0.1: talks to every host
#   put HOST SRC DST             copy a file into HOST, running or not
#   bus HOST                     D-Bus address of HOST's system bus, usable from outside
#   kill HOST [--sync]           power cut: peers see silence, not FIN or RST; what /data had not fsynced is lost
#   stop|reboot|start HOST       shut down or reboot through its systemd; boot again (disk and machine-id kept)
#   pause|resume HOST            stop all its processes (its kernel still ACKs: add `cut` for a paused VM)
#   partition A B                A, B: comma lists of hosts; drop frames both ways
#   oneway A B                   drop only frames from A to B
#   cut HOST                     drop everything from and to HOST
#   netem HOST off|OPTION...     delay=50ms jitter=10ms loss=5% dup=1% rate=1mbit seed=7, each way of HOST's cable
#   heal                         lift every partition, cut and netem
#   fill HOST [KB]|unfill HOST   leave KB kilobytes free on /data
#   iofreeze|iothaw HOST         writers to /data hang; go on
#   ioerror HOST                 /data fails with EIO until HOST is killed and started
#   clock HOST +30s|off          wall clock offset for services started after the first `clock` (later ones: at once)
#   uptime HOST SECONDS          what CLOCK_MONOTONIC and CLOCK_BOOTTIME say when HOST boots next (time namespace)
#
# Everything is inside one "world": a PID + mount + net namespace.  Killing its PID 1 ends all of it but empty cgroup
# directories, which `up` and `down` sweep.  The bridge is in the world's net namespace, which has no way out.
# Settings, read at `up`: HX_NAME (several worlds can run side by side), HX_ROOTFS (/ or a debootstrap), HX_FS_SIZE and
# HX_DATA_MB (disks), HX_NET, HX_TTL (the world ends by itself), HX_NSPAWN (more options, such as --bind-ro=DIR).
set -euo pipefail
W=${HX_NAME:-hx} LOWER=${HX_ROOTFS:-/} FS_SIZE=${HX_FS_SIZE:-512m} DATA_MB=${HX_DATA_MB:-64} NET=${HX_NET:-10.77.0}
D=/run/$W CG=/sys/fs/cgroup SELF=$(readlink -f "$0")
die() { echo "hosts.sh: $*" >&2; exit 1; }
quiet() { "$@" 2>/dev/null || true; }
until_ok() { local i n=$1; shift; for ((i = 0; i < n; i++)); do "$@" && return; sleep 0.05; done; return 1; }

# ---- the world, from outside --------------------------------------------------------------------------------
world() { [ -s "$D.pid" ] && grep -qs "^$W-world" "/proc/$(<"$D.pid")/cmdline" && cat "$D.pid"; }
inside() { local p; p=$(world) || die "nothing is up"; nsenter -t "$p" -m -n -p -- env HX_IN=1 bash "$SELF" "$@"; }
world_up() {
  world >/dev/null && return; sweep; mkdir -p "$D"
  setsid unshare -m -n -p -f --kill-child --mount-proc --propagation private -- \
    env HX_IN=1 bash "$SELF" _world </dev/null >"$D.log" 2>&1 &
  until_ok 100 find_world || { cat "$D.log" >&2; die "the world did not come up"; }
}
find_world() { local p; for p in $(pgrep -f "^$W-world"); do [ -e "/proc/$p/root$D/ready" ] && echo "$p" >"$D.pid" && return; done; return 1; }
down() {
  local p; if p=$(world); then quiet inside _thaw; quiet kill -9 "$p"; until_ok 200 [ ! -d "/proc/$p" ]; fi; sweep
  if [ -s "$D.inotify" ]; then sysctl -qw "fs.inotify.max_user_instances=$(<"$D.inotify")"; fi
  rm -f "$D".{pid,log,inotify}; if [ -d "$D" ]; then rmdir "$D"; fi
}
sweep() { until_ok 100 swept || die "some cgroups of $W are still busy"; }
swept() {
  local d all; all=$(find $CG -type d -name "$W" -prune 2>/dev/null) || true; [ -n "$all" ] || return 0
  for d in $all; do if [ -f "$d/cgroup.kill" ]; then echo 1 >"$d/cgroup.kill"; fi; quiet find "$d" -depth -type d -exec rmdir {} +; done; return 1
}
inotify() {                                             # a host takes 5 or 6 inotify instances; the default stops at 23 hosts
  local f=/proc/sys/fs/inotify/max_user_instances; [ "$(<$f)" -ge $(($1 * 6 + 64)) ] && return
  [ -s "$D.inotify" ] || cat $f >"$D.inotify"; echo $(($1 * 6 + 64)) >$f
}

# ---- cgroups: v1 + v2 side by side ("hybrid"), or v2 alone -----------------------------------------------------
v2() { if [ -f $CG/cgroup.controllers ]; then echo "$CG/$W/$1"; else echo "$CG/unified/$W/$1"; fi; }
join() {                                                # join HOST SUB: move this process there in every hierarchy
  local m g f p
  if [ -f $CG/cgroup.controllers ]; then
    g=$CG/$W/$1$2; mkdir -p "$g"; quiet find "$g"/{payload,supervisor} -depth -type d -exec rmdir {} +     # of the last boot
    for f in $(<"$g/cgroup.subtree_control"); do echo "-$f" >"$g/cgroup.subtree_control"; done              # or we could not join
    for p in $CG $CG/$W; do for f in cpu memory pids io; do quiet eval "echo +$f >$p/cgroup.subtree_control"; done; done
    echo "$BASHPID" >"$g/cgroup.procs"; return
  fi
  for m in systemd unified cpu cpuacct cpuset pids devices freezer blkio memory; do
    [ -f "$CG/$m/cgroup.procs" ] || continue; p=
    [ $m = memory ] && p=$(awk -F: '$2 == "memory" { sub("/$", "", $3); sub("/'"$W"'/.*", "", $3); print $3 }' /proc/self/cgroup)
    g=$CG/$m$p/$W; mkdir -p "$g"                        # memory: below the caller's own, to stay in its accounting
    if [ $m = cpuset ]; then for f in cpus mems; do cat "$g/../cpuset.$f" >"$g/cpuset.$f"; done; echo 1 >"$g/cgroup.clone_children"; fi
    mkdir -p "$g/$1$2"; echo "$BASHPID" >"$g/$1$2/cgroup.procs"; echo "$g/$1" >>"$D/$1/cgroups"
  done
}
reap() {                                                # after this no process of the host is left
  local g; g=$(v2 "$1"); [ -d "$g" ] || return 0
  echo 1 >"$g/cgroup.kill"; echo 0 >"$g/cgroup.freeze"; until_ok 100 grep -q "populated 0" "$g/cgroup.events"
  for g in "$g" $(sort -u "$D/$1/cgroups" 2>/dev/null); do if [ -d "$g" ]; then quiet find "$g" -depth -type d -exec rmdir {} +; fi; done
  rm -f "$D/$1/cgroups"
}

# ---- inside the world -------------------------------------------------------------------------------------------
_world() {                                              # becomes its PID 1
  mount --make-rshared /                                # an unmount here must reach the hosts' copies of the mount
  mkdir -p /run/netns /run/systemd; mount -t tmpfs netns /run/netns; mount -t tmpfs "$W" /run/systemd; mount -t tmpfs -o mode=755 "$W" "$D"
  ip link set lo up; ip link add br0 type bridge forward_delay 0 mcast_snooping 0
  ip addr add "$NET.1/24" dev br0; ip link set br0 up
  nft -f - <<'N'
    table bridge hx {
      set cut_pairs { type ifname . ifname; }
      set cut_hosts { type ifname; }
      chain c_forward { type filter hook forward priority 0; iifname . oifname @cut_pairs drop; iifname @cut_hosts drop; oifname @cut_hosts drop; }
      chain c_input { type filter hook input priority 0; iifname @cut_hosts drop; }
      chain c_output { type filter hook output priority 0; oifname @cut_hosts drop; }
    }
N
  touch "$D/ready"; exec -a "$W-world" bash -c 'sleep "$0" & wait $!' "${HX_TTL:-7200}"
}
num() { [[ $1 =~ ^h([0-9]+)$ ]] && echo "${BASH_REMATCH[1]}"; }
have() { num "${1:-}" >/dev/null && [ -d "$D/$1" ] || die "no such host: ${1:-}"; }
hosts() { find "$D" -maxdepth 1 -name 'h[0-9]*' -printf '%f\n' | sort -V; }
mkhost() {                                              # root: LOWER under a small tmpfs; /data: ext4 on a loop device
  local h=$1 r=$D/$1/root i u; [ -d "$D/$h" ] && return; mkdir -p "$D/$h"/{fs,root,data}
  mount -t tmpfs -o "size=$FS_SIZE,mode=755" "$W-$h" "$D/$h/fs"; mkdir -p "$D/$h"/fs/{up,wk}
  mount -t overlay "$W-$h" -o "lowerdir=$LOWER,upperdir=$D/$h/fs/up,workdir=$D/$h/fs/wk" "$r"
  # nothing that this machine has enabled, and none of its identity, may show up in the host
  rm -rf "$r"/etc/systemd/system/* "$r"/etc/rc?.d/* "$r"/var/log/journal "$r"/etc/{machine-id,hostname} "$r"/var/lib/dbus/machine-id "$r"/.dockerenv
  mkdir -p "$r"/{data,.hx,etc/systemd/system,var/log/journal}
  echo "$W-$h" | md5sum | cut -c1-32 >"$r/etc/machine-id"; echo "$h" >"$r/etc/hostname"
  { echo "127.0.0.1 localhost"; for i in {1..240}; do echo "$NET.$((10 + i)) h$i"; done; } >"$r/etc/hosts"
  for u in apt-daily{,-upgrade}.timer {man-db,dpkg-db-backup,e2scrub_all,fstrim}.timer dev-hugepages.mount \
           systemd-{timesyncd,networkd,resolved,udevd,modules-load}.service; do ln -s /dev/null "$r/etc/systemd/system/$u"; done
  cat >"$r/.hx/init" <<'I'
#!/bin/bash
# PID 1 for an instant: nspawn leaves these read-only, but they are this host's own
for m in cpu cpuacct cpuset pids devices freezer blkio memory; do [ ! -d /sys/fs/cgroup/$m ] || mount -o remount,bind,rw /sys/fs/cgroup/$m; done
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net
exec /lib/systemd/systemd
I
  chmod +x "$r/.hx/init"; truncate -s "${DATA_MB}M" "$D/$h/fs/data.img"; mkfs.ext4 -q -F -m 0 "$D/$h/fs/data.img"
}
link() { quiet ip link set "$@"; }
plug() {                                                # a fresh net namespace and cable
  local h=$1 n; n=$(num "$h"); ip netns add "$h"
  ip link add "$h" type veth peer name eth0 netns "$h" address "$(printf 02:77:00:00:00:%02x "$n")"; ip link set "$h" master br0 up
  ip -n "$h" addr add "$NET.$((10 + n))/24" dev eth0; ip -n "$h" link set lo up; ip -n "$h" link set eth0 up
}
unplug() { netem "$1" off; quiet ip netns del "$1"; quiet ip link del "$1"; until_ok 50 no_data "$1" || die "/data of $1 stays mounted"; }
no_data() { ! mountpoint -q "$D/$1/data" || { quiet umount "$D/$1/data"; ! mountpoint -q "$D/$1/data"; }; }
boot() {
  local h=$1; [ -z "$(init_pid "$h")" ] || return 0
  reap "$h"; unplug "$h"; plug "$h"; mount -o loop "$D/$h/fs/data.img" "$D/$h/data"
  setsid bash "$SELF" _run "$h" </dev/null >>"$D/$h/console" 2>&1 &
}
_run() {                                                # the host's supervisor; ends with it
  local h=$1 rc tns=() up; join "$h" /run
  if [ -s "$D/$h/uptime" ]; then up=$(($(<"$D/$h/uptime") - $(cut -d. -f1 /proc/uptime))); tns=(unshare -T --monotonic "$up" --boottime "$up" --); fi
  while rc=0; do
    ( join "$h" ""; exec "${tns[@]}" systemd-nspawn --quiet --directory="$D/$h/root" --machine="$h" --hostname="$h" --register=no --keep-unit \
      --network-namespace-path="/run/netns/$h" --bind="$D/$h/data:/data" --console=pipe --link-journal=no --resolv-conf=off --timezone=off \
      --kill-signal=SIGRTMIN+3 --capability=all --system-call-filter=@keyring --system-call-filter=bpf $(<"$D/nspawn") /.hx/init ) || rc=$?
    [ $rc = 133 ] || exit $rc                           # 133: the host wants to reboot
  done
}
init_pid() { quiet head -n1 "$(v2 "$1")/payload/init.scope/cgroup.procs"; }
off() { [ -z "$(init_pid "$1")" ]; }
enter() {                                               # joins the host's cgroup too, so that kill and pause reach it
  local h=$1 p t=; shift; p=$(init_pid "$h"); [ -n "$p" ] || die "$h is not running"; if [ -s "$D/$h/uptime" ]; then t=-T; fi
  ( mkdir -p "$(v2 "$h")/exec"; echo "$BASHPID" >"$(v2 "$h")/exec/cgroup.procs"
    exec nsenter -t "$p" -m -u -i -n -p -C $t -r -w -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb HOME=/root "$@" )
}
booted() { local s; s=$(enter "$1" systemctl is-system-running 2>/dev/null) || true; [ "$s" = running ] || { [ "$s" = degraded ] && echo "$1: degraded" >&2; }; }
wait_up() { until_ok 1200 booted "$1" || { tail -20 "$D/$1/console" >&2; die "$1 did not boot"; }; }
rebooted() { ! off "$1" && [ "$(init_pid "$1")" != "$2" ]; }
leave() {                                               # poweroff|reboot, and end what `exec` runs: systemd-shutdown gets no SIGCHLD
  enter "$1" systemctl "$2" --no-block; echo 1 >"$(v2 "$1")/exec/cgroup.kill"; }    # for such processes and would wait 90 s for them
fs_shutdown() {                                         # EXT4_IOC_SHUTDOWN, log not flushed: as if the power had gone
  python3 -c 'import fcntl,os,sys; fcntl.ioctl(os.open(sys.argv[1], 0), 0x8004587d, b"\2\0\0\0")' "$D/$1/data"; }
power_off() {
  link "$1" down; quiet fsfreeze -u "$D/$1/data"; if [ "${2-}" = --sync ]; then sync -f "$D/$1/data"; fi
  if mountpoint -q "$D/$1/data"; then quiet fs_shutdown "$1"; fi; reap "$1"; unplug "$1"
}
drop() {                                                # a host's port on br0 is h1, or h1x while it is behind netem
  local a b x y e=; for a in ${1//,/ }; do have "$a"; for b in ${2//,/ }; do have "$b"; [ "$a" = "$b" ] && continue
    for x in "$a" "${a}x"; do for y in "$b" "${b}x"; do e+="$x . $y,"; done; done; done; done
  [ -z "$e" ] || nft add element bridge hx cut_pairs "{ ${e%,} }"
}
netem() {                                               # HOST -h1- bridge h1b -h1y- relay.py -h1x- br0; the cable stays plugged in
  local h=$1 f=$D/$1/relay; shift
  if [ -s "$f" ]; then quiet kill "$(<"$f")"; rm "$f"; link "$h" master br0; quiet ip link del "${h}b"; fi
  [ "$1" != off ] || return 0
  relay >"$D/relay.py"; setsid python3 "$D/relay.py" "${h}y" "${h}x" "$@" </dev/null >>"$D/$h/console" 2>&1 & echo $! >"$f"
  ip link add "${h}b" type bridge forward_delay 0 mcast_snooping 0; link "${h}b" up
  until_ok 100 eval "ip link show ${h}x >/dev/null 2>&1" || die "relay of $h: see its console"
  link "${h}x" master br0 up; link "${h}y" master "${h}b" up; link "$h" master "${h}b"
}
relay() { cat <<'P'
import fcntl, heapq, os, random, re, select, struct, sys, time
opt = dict(a.split("=") for a in sys.argv[3:])
def val(k):                                             # 50ms, 1.5s, 5%, 1mbit
    n, u = re.fullmatch(r"([\d.]+)(\D*)", opt.get(k, "0")).groups()
    return float(n) * {"": 1, "s": 1, "ms": 1e-3, "us": 1e-6, "%": 1e-2, "kbit": 1e3, "mbit": 1e6}[u]
delay, jitter, loss, dup, rate = map(val, ("delay", "jitter", "loss", "dup", "rate"))
rnd = random.Random(opt.get("seed", "1"))
def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))   # TUNSETIFF, IFF_TAP | IFF_NO_PI
    return fd
fds, queue, seq, free = [tap(n) for n in sys.argv[1:3]], [], 0, [0.0, 0.0]
while True:
    wait = max(0, queue[0][0] - time.monotonic()) if queue else None
    for fd in select.select(fds, [], [], wait)[0]:
        way = fds.index(fd)
        try: frame = os.read(fd, 65536)
        except OSError: continue
        for _ in range(1 + (rnd.random() < dup)):
            if rnd.random() < loss or len(queue) >= 10000: continue
            at = time.monotonic() + max(0, delay + rnd.uniform(-jitter, jitter))
            if rate: free[way] = at = max(at, free[way]) + len(frame) * 8 / rate
            seq += 1; heapq.heappush(queue, (at, seq, fds[1 - way], frame))
    while queue and queue[0][0] <= time.monotonic():
        _, _, fd, frame = heapq.heappop(queue)
        try: os.write(fd, frame)
        except OSError: pass
P
}
clock() {
  local h=$1 so=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1; [ -e "$D/$h/root$so" ] || die "libfaketime is not installed"
  if [ "$2" = off ]; then echo +0 >"$D/$h/root/etc/hx-clock"; return; fi
  echo "$2" >"$D/$h/root/etc/hx-clock"
  enter "$h" systemctl set-environment LD_PRELOAD=$so FAKETIME_TIMESTAMP_FILE=/etc/hx-clock FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
}
state() { if off "$1"; then echo off; elif [ "$(<"$(v2 "$1")/cgroup.freeze")" = 1 ]; then echo paused; else echo on; fi; }

[ "$(id -u)" = 0 ] || die "needs root"
cmd=${1:-help}; shift || true
if [ -z "${HX_IN:-}" ]; then case $cmd in               # ---- outside the world
  up) [[ ${1:-} =~ ^[0-9]+$ ]] || die "up N"; world_up; inotify "$1"; inside up "$1" ;;
  down) down ;;
  status) inside status | while read -r h rest; do p=$(init_pid "$h"); echo "$h $rest ${p:--}"; done ;;
  bus) p=$(init_pid "$1"); [ -n "$p" ] || die "$1 is not running"; echo "unix:path=/proc/$p/root/run/dbus/system_bus_socket" ;;
  help) sed -n '2,35s/^# \{0,1\}//p' "$SELF" ;;
  *) inside "$cmd" "$@" ;;
esac; exit; fi
case $cmd in up|status|sh|heal|_*|partition|oneway) ;; *) have "${1:-}" ;; esac
case $cmd in                                            # ---- inside the world
  up) echo "${HX_NSPAWN:-}" >"$D/nspawn"             # kept: a host started later gets them too
      for ((i = 1; i <= $1; i++)); do mkhost "h$i"; boot "h$i"; done; for ((i = 1; i <= $1; i++)); do wait_up "h$i"; done ;;
  status) for h in $(hosts); do echo "$h $(state "$h") $NET.$((10 + $(num "$h")))"; done ;;
  exec) enter "$@" ;;
  sh) "$@" ;;
  put) cp -a "$2" "$D/$1/root$3" ;;
  kill) power_off "$@" ;;
  start) boot "$1"; wait_up "$1" ;;
  stop) leave "$1" poweroff; until_ok 600 off "$1" || die "$1 does not stop"; reap "$1"; unplug "$1" ;;
  reboot) p=$(init_pid "$1"); leave "$1" reboot; until_ok 600 rebooted "$1" "$p" || die "$1 does not reboot"; wait_up "$1" ;;
  pause) echo 1 >"$(v2 "$1")/cgroup.freeze"; until_ok 100 grep -q "frozen 1" "$(v2 "$1")/cgroup.events" || die "$1 does not freeze" ;;
  resume) echo 0 >"$(v2 "$1")/cgroup.freeze" ;;
  partition) drop "$1" "$2"; drop "$2" "$1" ;;
  oneway) drop "$1" "$2" ;;
  cut) nft add element bridge hx cut_hosts "{ $1, ${1}x }" ;;
  heal) nft flush set bridge hx cut_pairs; nft flush set bridge hx cut_hosts; for h in $(hosts); do netem "$h" off; done ;;
  netem) netem "$@" ;;
  fill) kb=$(($(df -k --output=avail "$D/$1/data" | tail -n1) - ${2:-0})); [ $kb -le 0 ] || fallocate -l ${kb}K "$D/$1/data/.ballast" ;;
  unfill) rm -f "$D/$1/data/.ballast" ;;
  iofreeze) fsfreeze -f "$D/$1/data" ;;
  iothaw) fsfreeze -u "$D/$1/data" ;;
  ioerror) fs_shutdown "$1" ;;
  clock) clock "$@" ;;
  uptime) echo "$2" >"$D/$1/uptime" ;;
  _thaw) for h in $(hosts); do quiet fsfreeze -u "$D/$h/data"; done ;;
  _run|_world) "$cmd" "$@" ;;
  *) die "unknown command: $cmd (try help)" ;;
esac
