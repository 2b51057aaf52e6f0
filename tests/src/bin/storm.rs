//! Bad requests for a daemon of this machine: `storm PEERS API RATE SECONDS`, such as
//! `storm 127.0.0.1:7340 127.0.0.1:49153 10000 10`. See `tests/tests/rack/storm.rs`.

use std::time::Duration;

use tests::storm::{Plan, run};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peers, api, rate, seconds] = &arguments[..] else {
        eprintln!("storm PEERS API RATE SECONDS");
        std::process::exit(2);
    };
    let plan = Plan {
        peers: peers.parse().expect("PEERS is ADDRESS:PORT"),
        api: api.parse().expect("API is ADDRESS:PORT"),
        rate: rate.parse().expect("RATE is requests a second"),
        time: Duration::from_secs(seconds.parse().expect("SECONDS is a number")),
    };
    print!("{}", run(plan));
}
