//! etcd's real clients: Debian's etcdctl with the old interface, curl, and python-etcd.

use std::process::Output;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::served::{PATIENCE, Served, ask};

fn etcdctl(served: &Served, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "2").arg(format!("--endpoints={}", served.url())).args(arguments);
    command.kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    let output = timeout(PATIENCE, command.output()).await.expect("it ends");
    output.expect("it is installed (Debian: etcd-client, curl, python3-etcd)")
}

/// What it says, both streams; it must succeed, or fail, as told.
async fn says(served: &Served, arguments: &[&str], good: bool) -> String {
    let output = output(etcdctl(served, arguments)).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.success(), good, "{arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_is_served() {
    let served = Served::start().await;
    let check = async |arguments: &[&str], expected: &str| {
        assert_eq!(says(&served, arguments, true).await, expected, "{arguments:?}");
    };
    let fails = async |arguments: &[&str], expected: &str| {
        let said = says(&served, arguments, false).await;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    check(&["set", "/message", "Hello world"], "Hello world\n").await;
    check(&["get", "/message"], "Hello world\n").await;
    check(&["update", "/message", "Hello again"], "Hello again\n").await;
    fails(&["update", "/nothing", "x"], "100: Key not found (/nothing)").await;
    check(&["mk", "/made", "1"], "1\n").await;
    fails(&["mk", "/made", "2"], "105: Key already exists (/made)").await;
    check(&["mkdir", "/services"], "").await;
    fails(&["mkdir", "/services"], "105: Key already exists (/services)").await;
    check(&["setdir", "/other"], "").await;
    check(&["set", "/services/web", "10.0.0.1:80", "--ttl", "1000"], "10.0.0.1:80\n").await;
    check(&["set", "/services/_secret", "x"], "x\n").await;
    check(&["ls"], "/made\n/message\n/other\n/services\n").await;
    check(&["ls", "--recursive", "-p", "/services"], "/services/web\n").await;
    check(&["set", "/message", "swapped", "--swap-with-value", "Hello again"], "swapped\n").await;
    fails(&["set", "/message", "no", "--swap-with-value", "Hello again"], "101: Compare failed").await;
    check(
        &["-o", "extended", "get", "--quorum", "/made"],
        "Key: /made\nCreated-Index: 3\nModified-Index: 3\nTTL: 0\nIndex: 8\n\n1\n",
    )
    .await;
    fails(&["rm", "/services"], "102: Not a file (/services)").await;
    fails(&["rmdir", "/services"], "108: Directory not empty (/services)").await;
    check(&["rm", "--recursive", "/services"], "").await;
    check(&["rmdir", "/other"], "").await;
    check(&["rm", "/made"], "PrevNode.Value: 1\n").await;
    fails(&["updatedir", "/made"], "100: Key not found (/made)").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_watches() {
    let served = Served::start().await;
    let watched_by = async |count: u64| {
        let path = "/v2/stats/store";
        while ask(served.address, "GET", path, "").await.json()["watchers"] != count {
            tokio::task::yield_now().await;
        }
    };
    let one = tokio::spawn(output(etcdctl(&served, &["watch", "/a"])));
    let mut forever = etcdctl(&served, &["watch", "--forever", "--recursive", "/"]);
    let mut forever = forever.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let script = "echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let mut exec = etcdctl(&served, &["exec-watch", "--recursive", "/a", "--", "sh", "-c", script]);
    let mut exec = exec.stdout(std::process::Stdio::piped()).spawn().unwrap();
    watched_by(3).await;
    assert_eq!(ask(served.address, "PUT", "/v2/keys/a", "value=1").await.status, 201);
    watched_by(2).await;
    assert_eq!(ask(served.address, "PUT", "/v2/keys/b", "value=2").await.status, 201);
    watched_by(2).await;
    assert_eq!(ask(served.address, "DELETE", "/v2/keys/a", "").await.status, 200);
    assert_eq!(String::from_utf8_lossy(&one.await.unwrap().stdout), "1\n");
    let mut lines = BufReader::new(forever.stdout.take().unwrap()).lines();
    for expected in ["[set] /a", "1", "[set] /b", "2", "[delete] /a"] {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it tells").unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    for expected in ["set /a 1", "delete /a"] {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it tells").unwrap().unwrap();
        assert_eq!(line.trim().trim_matches('"').replace("\" \"", " ").trim(), expected);
    }
    forever.kill().await.unwrap();
    exec.kill().await.unwrap();
    served.stop().await;
}

/// The commands of the CoreOS guides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_served() {
    let served = Served::start().await;
    let curl = async |path: &str, arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sL", &format!("{}{path}", served.url())]).args(arguments);
        String::from_utf8(output(command).await.stdout).unwrap()
    };
    let set = curl("/v2/keys/message", &["-XPUT", "-d", "value=Hello world"]).await;
    let node = r#"{"key":"/message","value":"Hello world","modifiedIndex":1,"createdIndex":1}"#;
    assert_eq!(set, format!("{{\"action\":\"set\",\"node\":{node}}}\n"));
    assert_eq!(curl("/v2/keys/message", &[]).await, format!("{{\"action\":\"get\",\"node\":{node}}}\n"));
    let next = r#"{"key":"/queue/00000000000000000002","value":"Job1","modifiedIndex":2,"createdIndex":2}"#;
    let made = curl("/v2/keys/queue", &["-XPOST", "-d", "value=Job1"]).await;
    assert_eq!(made, format!("{{\"action\":\"create\",\"node\":{next}}}\n"));
    let taken = curl("/v2/keys/message?prevExist=false", &["-XPUT", "-d", "value=Three"]).await;
    let words = r#""message":"Key already exists","cause":"/message","index":2}"#;
    assert_eq!(taken, format!("{{\"errorCode\":105,{words}\n"));
    let head = curl("/v2/keys/message", &["-I"]).await;
    for header in
        ["HTTP/1.1 200 OK", "X-Etcd-Index: 2", "X-Raft-Index: ", "X-Raft-Term: ", "X-Etcd-Cluster-Id: "]
    {
        assert!(head.contains(header), "{head}");
    }
    served.stop().await;
}

const PYTHON: &str = include_str!("client.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_etcd_is_served() {
    let served = Served::start().await;
    let python = std::env::var("COREINIT_PYTHON").unwrap_or("/usr/bin/python3".into());
    let mut command = Command::new(python);
    command.args(["-c", PYTHON, &served.address.port().to_string()]).kill_on_drop(true);
    let output = output(command).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.ends_with("all is well\n"), "{said}");
    served.stop().await;
}
