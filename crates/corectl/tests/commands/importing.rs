//! Taking over a fleet cluster: its keys in a real etcd, written with etcdctl as fleet wrote them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use cluster::DesiredState::{Inactive, Launched};
use cluster::UnitFile;
use tokio::time::Instant;

use crate::play::{GOOD, Play, SOON};

struct Etcd {
    process: Child,
    endpoint: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    fn begin(play: &Play) -> Etcd {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (client, peer) = (format!("http://{}", free()), format!("http://{}", free()));
        let process = Command::new("etcd")
            .arg(format!("--data-dir={}", play.dir.path().join("etcd").display()))
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .args([format!("--initial-cluster=default={peer}"), "--enable-v2".into()])
            .stderr(Stdio::null())
            .spawn();
        Etcd { process: process.expect("etcd is installed (Debian: etcd-server)"), endpoint: client }
    }

    fn set(&self, key: &str, value: &str) {
        let begin = Instant::now();
        let set = || {
            let mut ctl = Command::new("etcdctl");
            ctl.env("ETCDCTL_API", "2").args(["--endpoints", &self.endpoint, "set", "--"]);
            ctl.args([&format!("/_coreos.com/fleet/{key}"), value]).output().unwrap().status.success()
        };
        while !set() {
            assert!(begin.elapsed() < 3 * SOON, "etcd serves");
        }
    }

    fn job(&self, name: &str, text: &str, state: &str) {
        let hash = UnitFile::parse(text).unwrap().hash();
        let bytes: Vec<String> = hash.0.iter().map(u8::to_string).collect();
        self.set(&format!("unit/{hash}"), &format!("{{\"Raw\":{text:?}}}"));
        let object = format!("{{\"Name\":\"{name}\",\"UnitHash\":[{}]}}", bytes.join(","));
        self.set(&format!("job/{name}/object"), &object);
        self.set(&format!("job/{name}/target-state"), state);
    }
}

#[tokio::test]
async fn a_fleet_comes_over_with_what_it_wants() {
    let play = Play::begin().await;
    let etcd = Etcd::begin(&play);
    etcd.job("hello.service", GOOD, "launched");
    etcd.job("web@.service", "[Service]\nExecStart=/bin/echo %i\n", "inactive");
    etcd.job("other.service", "[Service]\nExecStart=/bin/true\n", "launched");
    etcd.set("job/lost.service/object", "{\"Name\":\"lost.service\",\"UnitHash\":[1,2,3]}");
    play.create("other.service", Inactive).await;
    let import = ["import", "fleet", "--etcd", &etcd.endpoint];
    let complaints = "corectl: lost.service is left out: its file, 010203, is not there\n\
                      corectl: other.service is here already, with another file; use --replace\n";
    let dry = play.run(&[&import[..], &["--dry-run"]].concat()).await;
    dry.is(1, "hello.service would be launched\nweb@.service would be inactive\n", complaints);
    assert_eq!(play.desired("hello.service"), None);

    let done = play.run(&import).await;
    done.is(1, "hello.service is launched\nweb@.service is inactive\n", complaints);
    assert_eq!(play.desired("hello.service"), Some(Launched));
    assert_eq!(play.desired("web@.service"), Some(Inactive));
    assert_eq!(play.desired("other.service"), Some(Inactive), "it is left alone");
    assert_eq!(play.run(&[&import[..], &["--replace"]].concat()).await.code, 1, "one is still lost");
    assert_eq!(play.desired("other.service"), Some(Launched));
}
