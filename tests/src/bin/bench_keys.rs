//! How many keys a second our own key API takes, beside a real etcd of three members on the same hosts.
//!
//!     HX_DATA_MB=600 cargo run --release -p tests --bin bench_keys [-- SECONDS]
//!
//! On a rack of three real hosts, each with a member of an etcd (3.4, `--enable-v2`) and our daemon, both
//! with their data on the disk that honours `fsync`. Clients run on one of the hosts, beside the leader or
//! beside a follower, each with a connection of its own; each sets a key of 64 bytes and waits for the
//! answer. The two are measured in turns, three rounds; ratios are of one run. It needs root, and what
//! `tests/rack/README.md` lists.

use std::time::{Duration, Instant};

use tests::deploy::Cluster;
use tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONFIG: &str = "/etc/coreinit/coreinitd.toml";
const LOAD: &str = "/root/bench-keys";
const ROUNDS: usize = 3;
/// The port of each on every host's loopback.
const SIDES: [(&str, u16); 2] = [("etcd", 2379), ("coreinit", 4001)];
/// Where each counts what a sync of its log takes, and under which name.
const SYNCS: [(&str, &str); 2] = [
    ("http://127.0.0.1:2379/metrics", "etcd_disk_wal_fsync_duration_seconds"),
    ("--unix-socket /run/coreinit.sock http://coreinit/metrics", "coreinit_log_sync_seconds"),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [word, port, clients, seconds] if word == "load" => {
            let number = |text: &String| text.parse::<u16>().expect("a number");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let span = Duration::from_secs(number(seconds).into());
            runtime.expect("a runtime").block_on(load(number(port), number(clients).into(), span));
        }
        rest => bench(rest.first().and_then(|s| s.parse().ok()).unwrap_or(5)),
    }
}

/// Runs on a host. Prints writes a second, and the middle and the 99th of a hundred latencies in ms.
async fn load(port: u16, clients: usize, span: Duration) {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
            stream.set_nodelay(true).expect("a TCP stream");
            let mut latencies = Vec::new();
            while begun.elapsed() < span {
                let asked = Instant::now();
                set(&mut stream, port, client, latencies.len()).await;
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let mut all: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
    all.sort_unstable();
    let at = |q: f64| all[((all.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    println!("{rate:.0} {:.2} {:.2}", at(0.5), at(0.99));
}

async fn set(stream: &mut TcpStream, port: u16, client: usize, number: usize) {
    let form = format!("value={number:064}");
    let request = format!(
        "PUT /v2/keys/bench/{client}/{} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        number % 16,
        form.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it takes requests");
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut bytes).await.expect("it answers");
        assert!(read > 0, "the connection ended");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let length: usize = length.expect("an answer says how long it is");
        if end + 4 + length <= bytes.len() {
            assert!(head.starts_with("http/1.1 20"), "{}", String::from_utf8_lossy(&bytes));
            return;
        }
    }
}

fn bench(seconds: u32) {
    let cluster = Cluster::up(3);
    let rack = &cluster.rack;
    let hosts = rack.hosts();
    let peers: Vec<String> = hosts.iter().map(|host| format!("{host}=http://{host}:2380")).collect();
    for host in hosts {
        let address = rack.address(host);
        let unit = format!(
            "[Service]\nType=notify\nExecStart=/usr/bin/etcd --name={host} --data-dir=/data/etcd --enable-v2 \
             --advertise-client-urls=http://{host}:2379 \
             --listen-client-urls=http://{address}:2379,http://127.0.0.1:2379 \
             --listen-peer-urls=http://{address}:2380 --initial-advertise-peer-urls=http://{host}:2380 \
             --initial-cluster={}\n",
            peers.join(",")
        );
        rack.shell(host, &format!("printf %s '{unit}' >/etc/systemd/system/etcd.service"));
        rack.shell(host, "systemctl daemon-reload; systemctl start --no-block etcd");
        rack.put(host, &std::env::current_exe().expect("a program has a path"), LOAD);
        rack.shell(host, &format!("sed -i '1i etcd_listen = \"127.0.0.1:4001\"' {CONFIG}; chmod +x {LOAD}"));
        rack.exec(host, &["systemctl", "restart", "--no-block", "coreinitd"]);
    }
    cluster.formed();
    println!(
        "side      at        clients  writes/s  p50 ms  p99 ms  sync ms  \
         (medians of {ROUNDS} rounds of {seconds} s; mean of the host's syncs)"
    );
    for at_leader in [true, false] {
        for clients in [1, 16, 256] {
            compare(&cluster, at_leader, clients, seconds);
        }
    }
}

fn compare(cluster: &Cluster, at_leader: bool, clients: usize, seconds: u32) {
    // Of each side, of each round: the rate, the middle latency, the 99th of a hundred, a sync.
    let mut rates: [Vec<Vec<f64>>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for ((_, port), rates) in SIDES.iter().zip(&mut rates) {
            let host = host(cluster, *port, at_leader);
            let (clients, seconds) = (clients.to_string(), seconds.to_string());
            let before = synced(cluster, &host, *port);
            let said = cluster.rack.exec(&host, &[LOAD, "load", &port.to_string(), &clients, &seconds]);
            let after = synced(cluster, &host, *port);
            let mut row: Vec<f64> =
                said.split_whitespace().map(|number| number.parse().expect("a number")).collect();
            row.push((after.0 - before.0) / (after.1 - before.1) * 1e3);
            rates.push(row);
        }
    }
    let middle = |rows: &[Vec<f64>], column: usize| {
        let mut all: Vec<f64> = rows.iter().map(|row| row[column]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let place = if at_leader { "leader" } else { "follower" };
    for ((name, _), rates) in SIDES.iter().zip(&rates) {
        let [rate, p50, p99, sync] = [0, 1, 2, 3].map(|column| middle(rates, column));
        println!("{name:8}  {place:8}  {clients:7}  {rate:8.0}  {p50:6.2}  {p99:6.2}  {sync:7.2}");
    }
    println!("ratio     {place:8}  {clients:7}  {:8.2}", middle(&rates[1], 0) / middle(&rates[0], 0));
}

/// Seconds that the host's syncs took so far, and how many they were.
fn synced(cluster: &Cluster, host: &str, port: u16) -> (f64, f64) {
    let side = SIDES.iter().position(|(_, of)| *of == port).expect("one of the sides");
    let (at, name) = SYNCS[side];
    let metrics = cluster.rack.shell(host, &format!("curl -s --max-time 5 {at}"));
    let number = |what: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}_{what} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}_{what} in {metrics}"))
    };
    (number("sum"), number("count"))
}

/// A host whose member leads, or one whose member follows.
fn host(cluster: &Cluster, port: u16, leads: bool) -> String {
    let state = |host: &str| {
        let url = format!("http://127.0.0.1:{port}/v2/stats/self");
        cluster.rack.exec(host, &["curl", "-s", "--max-time", "5", &url])
    };
    let found = || {
        let all: Vec<(String, String)> =
            cluster.rack.hosts().iter().map(|host| (host.clone(), state(host))).collect();
        let leaders = all.iter().filter(|(_, state)| state.contains("StateLeader")).count();
        let fits = |state: &str| state.contains(if leads { "StateLeader" } else { "StateFollower" });
        let fit = all.iter().find(|(_, state)| fits(state)).map(|(host, _)| host.clone());
        fit.filter(|_| leaders == 1).ok_or_else(|| format!("{all:?}"))
    };
    eventually(Duration::from_secs(60), "a member that leads", found).0
}
