//! A store that was damaged while its host was away: said, set aside, never served, and the machine comes
//! back through the others.

use std::time::Duration;

use api::v1::State;
use tests::deploy::{Cluster, DATA_DIR, probes, set};
use tests::wait::eventually;

/// What is done to the largest file of the store, in Python: `path` is its name.
const DAMAGES: &[(&str, &str)] = &[
    (
        "a bit flipped in each page",
        "b = bytearray(open(path, 'rb').read())\n\
         for page in range(0, len(b), 4096):\n \
           used = [i for i in range(page, min(page + 4096, len(b))) if b[i]]\n \
           if used: b[used[len(used) // 2]] ^= 1\n\
         open(path, 'r+b').write(b)",
    ),
    // Of what is written, not of the file: most of it may be room for more.
    ("cut in half", "os.truncate(path, len(open(path, 'rb').read().rstrip(b'\\0')) // 2)"),
    ("deleted", "os.remove(path)"),
];

pub fn a_damaged_store_is_set_aside(cluster: &Cluster) {
    let rack = &cluster.rack;
    let units = probes("damage", 6);
    cluster.launch("h1", &units);
    let (homes, _) = cluster.at_home(Duration::from_secs(20), "h1", &units);
    let before = cluster.main_pids(&homes);
    for (host, (what, damage)) in rack.hosts().iter().zip(DAMAGES) {
        cluster.formed();
        let other = &rack.others(host)[0];
        let changes = membership_changes(cluster);
        let mut kept = cluster.units(other).expect("an answer");
        cluster.stop_daemon(host);
        let cursor =
            rack.shell(host, "journalctl -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p'");
        let program = format!(
            "import os\nfiles = [os.path.join(d, f) for d, _, fs in os.walk('{DATA_DIR}') for f in fs]\n\
             files = [f for f in files if '/damaged-' not in f]\n\
             path = max(files, key=os.path.getsize)\nprint(path, os.path.getsize(path))\n{damage}\n"
        );
        let file = rack.exec(host, &["python3", "-c", &program]);
        println!("rack: {host}: {} {what}", file.trim());
        cluster.start_daemon(host);

        let said = || {
            let after = format!("--after-cursor={}", cursor.trim());
            let log = rack
                .exec(host, &["journalctl", "-u", "coreinitd.service", "--no-pager", "-o", "cat", &after]);
            let told = log.lines().find(|line| line.contains("set aside") || line.contains("sets aside"));
            told.map(str::to_string).ok_or(log)
        };
        let (line, _) = eventually(Duration::from_secs(20), "the journal to say it", said);
        println!("rack: {host}: {line}");
        let (_, took) =
            eventually(Duration::from_secs(30), "the machine to be back", || cluster.formed_now());
        println!("rack: {host}: back in the cluster after {took:?}");
        // It has to vote again before another machine may lose its store.
        eventually(Duration::from_secs(20), "the machine to vote again", || {
            match membership_changes(cluster) {
                now if now > changes => Ok(()),
                now => Err(format!("{now} changes of the membership so far")),
            }
        });
        let after = format!("probe-after-{host}.service");
        let text = Some("[Service]\nExecStart=/bin/true\n");
        cluster.batch(other, vec![set(&after, text, State::Inactive)]).expect("a write is acknowledged");
        kept.push(cluster.unit(other, &after).expect("it is stored"));
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(names(&cluster.units(host).expect("an answer")), names(&kept), "what {host} serves");
        assert_eq!(cluster.at_home_now(host, &units), Ok(homes.clone()), "nothing has moved");
        assert_eq!(cluster.main_pids(&homes), before, "no unit was touched");
    }
}

/// How often a leader began to change the membership, as all journals have it.
fn membership_changes(cluster: &Cluster) -> usize {
    let logs = cluster.rack.hosts().iter().map(|host| cluster.daemon_log(host, 100_000));
    logs.map(|log| log.matches("changing the membership").count()).sum()
}

fn names(units: &[api::v1::Unit]) -> Vec<(&str, &str)> {
    units.iter().map(|unit| (unit.name.as_str(), unit.hash.as_str())).collect()
}
