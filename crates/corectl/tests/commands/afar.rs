//! A cluster from afar: inviting, contexts, and what is wrong with them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use api::Context;
use coreinitd::http::{self, Access, Door, HttpParts, InitError, Inviting, IssuePerson};
use identity::{Authority, Keyring, PeopleTls, Secret};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::play::{Play, SOON, Said, end, id};

/// The same store, served to people with certificates.
struct Afar {
    socket: PathBuf,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Afar {
    async fn begin(play: &Play, name: &str) -> Afar {
        let authority = Authority::of(&Secret::new(&[7; 32]).unwrap()).unwrap();
        let keyring = Keyring::new(authority, id("m1")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = Some(listener.local_addr().unwrap().port());
        let socket = play.dir.path().join(name);
        let doors: Vec<Door> = vec![
            http::bind(&socket).await.unwrap().into(),
            Door::Tls(listener, Arc::new(PeopleTls::new(&keyring))),
        ];
        let issue: IssuePerson = Arc::new(move |name, role, lifetime| {
            let lifetime = lifetime.try_into().map_err(|_| "too long".to_string())?;
            let issued = keyring.authority().issue_person(name, role, lifetime);
            Ok((issued.map_err(|error| error.to_string())?, keyring.authority().certificate_pem()))
        });
        let parts = HttpParts {
            store: play.store.clone(),
            machine: id("m1"),
            version: "1".into(),
            ask: Arc::new(|_, _| Box::pin(async { Err("no machine answers here".into()) })),
            init: Arc::new(|_| Box::pin(async { Err(InitError::Exists { id: "c1".into() }) })),
            signs: Arc::default(),
            membership: None,
            access: Access { invite: Ok(Inviting { issue, port }), ..Access::default() },
        };
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(async move { http::run(parts, doors, stopping).await.unwrap() });
        Afar { socket, stop, task }
    }

    /// What was invited reaches this daemon, and not the machines' addresses of the play.
    async fn invite(&self, play: &Play, words: &str, from: &Context) -> Said {
        let address = &from.addresses[0];
        let words = format!("cluster invite --address {address} {words}");
        play.run_at(&self.socket, &words.split_whitespace().collect::<Vec<_>>()).await
    }

    async fn end(self) {
        self.stop.send_replace(true);
        timeout(SOON, self.task).await.unwrap().unwrap();
    }
}

/// Without an endpoint, and at home in the play's folder.
async fn at_home(play: &Play, words: &str) -> Said {
    let mut command = play.command(&words.split_whitespace().collect::<Vec<_>>());
    command.env_remove("COREINIT_ENDPOINT").env_remove("XDG_CONFIG_HOME").env("HOME", play.dir.path());
    let child = command.spawn().unwrap();
    end(tokio::spawn(async move { child.wait_with_output().await.unwrap() })).await
}

fn kept(play: &Play) -> PathBuf {
    play.dir.path().join(".config/coreinit/contexts")
}

#[track_caller]
fn told(said: &Said, code: i32, parts: &[&str]) {
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, code, "{all}");
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in {all}");
    }
}

#[tokio::test]
async fn a_person_is_invited_and_uses_the_cluster_from_afar() {
    let play = Play::begin().await;
    let afar = Afar::begin(&play, "afar.sock").await;
    let file = play.dir.path().join("alice.context");
    let first = play.run_at(&afar.socket, &["cluster", "invite", "alice", "--role", "viewer"]).await;
    told(&first, 0, &["alice may use the cluster as viewer until"]);
    let printed = Context::parse(&first.out).unwrap();
    // The machines of the play, with the daemon's port.
    let port = printed.addresses[0].rsplit_once(':').unwrap().1;
    assert_eq!(printed.addresses, [format!("10.0.0.1:{port}"), format!("10.0.0.2:{port}")]);
    let here = Context { addresses: vec![format!("127.0.0.1:{port}")], ..printed };

    let said = afar.invite(&play, "alice --role operator --file alice.context", &here).await;
    told(&said, 1, &["alice is invited already", "--replace"]);
    assert!(!file.exists(), "nothing is left of it");
    let said =
        afar.invite(&play, "alice --role operator --replace --ttl 2w --file alice.context", &here).await;
    told(&said, 0, &["as operator", "alice.context"]);
    assert!(!said.out.contains("PRIVATE"), "{}", said.out);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let again = afar.invite(&play, "alice --role operator --replace --file alice.context", &here).await;
    told(&again, 1, &["cannot make alice.context"]);

    told(
        &at_home(&play, "--context prod list-machines").await,
        1,
        &["there is no context \"prod\"", "context add"],
    );
    told(
        &at_home(&play, "context add prod alice.context").await,
        0,
        &["prod: alice of cluster test, as operator"],
    );
    assert_eq!(fs::metadata(kept(&play)).unwrap().mode() & 0o777, 0o600);
    told(
        &at_home(&play, "context add prod alice.context").await,
        1,
        &["there is a context \"prod\" already"],
    );
    told(&at_home(&play, "context add --replace prod alice.context").await, 0, &[]);
    told(&at_home(&play, "--context prod list-machines").await, 0, &["h1", "h2"]);
    told(&at_home(&play, "list-machines").await, 1, &["/run/coreinit.sock"]);
    told(&at_home(&play, "context use prod").await, 0, &["prod is used"]);
    told(&at_home(&play, "list-machines").await, 0, &["h1", "h2"]);
    told(&at_home(&play, "--context local list-machines").await, 1, &["/run/coreinit.sock"]);
    told(&at_home(&play, "cluster people").await, 0, &["alice  operator"]);
    told(&at_home(&play, "cluster uninvite alice").await, 1, &["needs the role admin, and alice has"]);
    let shown = at_home(&play, "context show").await;
    told(&shown, 0, &["Person:", "alice", &here.addresses[0]]);
    assert!(!shown.out.contains("PRIVATE"), "{}", shown.out);
    // What is about one machine is not done to the one that happens to answer.
    let commands = [
        "cluster leave",
        "cluster init",
        "cluster join t a",
        "reboot-lock take",
        "reboot-lock done",
        "reboot-lock reboot",
    ];
    for command in commands {
        let said = at_home(&play, command).await;
        told(&said, 1, &["is about one machine", "--context local"]);
    }
    assert!(play.state().machines[&id("m1")].schedulable, "nothing was begun");
    told(&at_home(&play, "-o json context list").await, 0, &["\"current\": true"]);

    told(&play.run_at(&afar.socket, &["cluster", "uninvite", "alice"]).await, 0, &["alice: shut out"]);
    told(
        &at_home(&play, "list-machines").await,
        1,
        &["alice is not invited, or no longer", "cluster invite alice"],
    );
    told(&at_home(&play, "context remove prod").await, 0, &["the daemon of this machine"]);
    told(&at_home(&play, "context list").await, 0, &["*  local"]);
    afar.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_context_is_said() {
    let play = Play::begin().await;
    let afar = Afar::begin(&play, "afar.sock").await;
    let printed = play.run_at(&afar.socket, &["cluster", "invite", "alice", "--role", "viewer"]).await.out;
    let good = Context::parse(&printed).unwrap();
    let file = |name: &str, context: &Context| {
        let path = play.dir.path().join(name);
        fs::write(&path, serde_json::to_string(context).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let path = file("good", &good);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    told(&at_home(&play, "context add a good").await, 1, &["can be read by others", "chmod 600 good"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    told(&at_home(&play, "context add a none").await, 1, &["there is no file none"]);
    told(&at_home(&play, "context add local good").await, 1, &["take another name"]);
    told(&at_home(&play, "context add a -").await, 1, &["this is no context"]);
    file("cut", &Context { key: good.key[..40].into(), ..good.clone() });
    let cut = at_home(&play, "context add a cut").await;
    told(&cut, 1, &["the context's key cannot be used", "ask for another invitation"]);

    // It is over by the clock here, and nobody is asked.
    file("over", &Context { expires: 1, ..good.clone() });
    told(&at_home(&play, "context add over over").await, 0, &["until 1970-01-01"]);
    let over = at_home(&play, "--context over list-units").await;
    told(&over, 1, &["has expired, on 1970-01-01", "cluster invite alice --role viewer --replace"]);

    // Nobody is there.
    file("gone", &Context { addresses: vec!["127.0.0.1:1".into()], ..good.clone() });
    told(&at_home(&play, "context add gone gone").await, 0, &[]);
    let gone = at_home(&play, "--context gone list-units").await;
    told(&gone, 1, &["no machine of the cluster answers: 127.0.0.1:1: "]);
    let both = at_home(&play, "--context gone --endpoint unix:///x list-units").await;
    told(&both, 1, &["there is an endpoint", "name one of them"]);
    let tunnel = at_home(&play, "--context gone --tunnel h1 list-units").await;
    told(&tunnel, 1, &["a context needs no tunnel"]);
    // What is typed goes before what is in the environment.
    told(&play.run(&["--context", "local", "list-units"]).await, 1, &["/run/coreinit.sock"]);

    fs::set_permissions(kept(&play), fs::Permissions::from_mode(0o640)).unwrap();
    told(&at_home(&play, "context list").await, 1, &["can be read by others", "chmod 600"]);
    fs::set_permissions(kept(&play), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(kept(&play), "{").unwrap();
    told(&at_home(&play, "list-units").await, 1, &["is damaged"]);
    let usage = play.run(&["cluster", "invite", "a b", "--role", "root"]).await;
    told(&usage, 2, &["a person's name is"]);
    told(
        &play.run(&["cluster", "invite", "a", "--role", "root"]).await,
        2,
        &["a role is admin, operator or viewer"],
    );
    afar.end().await;
}
