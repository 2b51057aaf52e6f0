//! An etcd that checks whom it talks to, by certificate and by password, and is checked itself; on both
//! interfaces. Whatever keeps a daemon out is said in words that name the key of its configuration.

use etcd_compat::{Api, Options, Tls, User};
use store::Role;
use store::conformance::{Member, PATIENCE};
use tokio::time::timeout;

use crate::certificates::{Authority, Identity, show};
use crate::{Machines, calm, leads, options, troubled, written};
use etcd_process::Etcd;

/// Root, a user who may do what a daemon has to, and one who may only read, on that interface.
async fn users(etcd: &mut Etcd, api: Api) {
    let (daemon, reader) = ("daemon:word", "reader:word");
    match api {
        Api::V3 => {
            for user in ["root:secret", daemon, reader] {
                etcd.ctl(&["user", "add", user]).await;
            }
            etcd.ctl(&["user", "grant-role", "root", "root"]).await;
            for (role, may) in [("daemon", "readwrite"), ("reader", "read")] {
                etcd.ctl(&["role", "add", role]).await;
                etcd.ctl(&["role", "grant-permission", "--prefix=true", role, may, "/coreinit/"]).await;
                etcd.ctl(&["user", "grant-role", role, role]).await;
            }
            etcd.ctl(&["auth", "enable"]).await;
            etcd.be("root:secret");
        }
        Api::V2 => {
            for user in ["root:secret", daemon, reader] {
                etcd.ctl_at("2", &["user", "add", user]).await;
            }
            for (role, may) in [("daemon", "--readwrite"), ("reader", "--read")] {
                etcd.ctl_at("2", &["role", "add", role]).await;
                etcd.ctl_at("2", &["role", "grant", role, "--path", "/coreinit*", may]).await;
                etcd.ctl_at("2", &["user", "grant", role, "--roles", role]).await;
            }
            etcd.ctl_at("2", &["auth", "enable"]).await;
            etcd.be("root:secret");
            etcd.ctl_at("2", &["role", "remove", "guest"]).await;
        }
    }
}

fn user(name: &str, password: &str) -> Option<User> {
    Some(User { name: name.into(), password: password.into() })
}

async fn says(member: &Member, expected: &str) {
    let mut role = member.store.role();
    let told = |role: &Role| matches!(role, Role::Unformed { hint } if hint.contains(expected));
    let found = timeout(PATIENCE, role.wait_for(told)).await.map(drop);
    assert!(found.is_ok(), "{}: {expected:?} in {:?}", member.machine, member.store.role().borrow());
}

async fn only_those_who_are_known_are_let_in(api: Api) {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let server = ours.issue(72);
    let files = ours.files(dir.path(), &server);
    let mut etcd = Etcd::start_with_tls(files.clone()).await;
    users(&mut etcd, api).await;
    let mut machines = Machines::start(&etcd, &[], Some(api));
    let tls = |ca: &Authority, identity: Option<Identity>| Some(Tls { ca: ca.pem.clone(), identity });
    let good = || tls(&ours, Some(ours.issue(72)));
    let (secure, port) =
        (etcd.endpoints()[0].clone(), etcd.endpoints()[0].rsplit(':').next().unwrap().to_string());
    let plain = Etcd::start(1, &[]).await;
    let cases = [
        (
            "ca",
            secure.clone(),
            tls(&others, Some(ours.issue(72))),
            user("daemon", "word"),
            "nobody in etcd_ca_file",
        ),
        ("none", secure.clone(), tls(&ours, None), user("daemon", "word"), "set etcd_cert_file"),
        (
            "other",
            secure.clone(),
            tls(&ours, Some(others.issue(72))),
            user("daemon", "word"),
            "refuses this machine",
        ),
        (
            "old",
            secure.clone(),
            tls(&ours, Some(ours.issue(2))),
            user("daemon", "word"),
            "has expired (etcd_cert_file)",
        ),
        ("name", format!("https://localhost:{port}"), good(), user("daemon", "word"), "for other names"),
        ("http", format!("http://127.0.0.1:{port}"), good(), user("daemon", "word"), "write https://"),
        ("https", plain.endpoints()[0].replace("http:", "https:"), good(), None, "write http://"),
        ("password", secure.clone(), good(), user("daemon", "wrong"), "etcd_user"),
        ("nobody", secure.clone(), good(), None, "user"),
    ];
    for (id, endpoint, tls, user, expected) in cases {
        // An etcd 3.4 that takes a certificate for a user's falls over one without a name, on its v2
        // interface.
        if (api, id) == (Api::V2, "nobody") {
            continue;
        }
        let options = Options { tls, user, ..options(id, etcd.dir(), vec![endpoint], Some(api)) };
        says(&machines.add(options), expected).await;
    }

    let daemon = |id: &str| Options {
        tls: good(),
        user: user("daemon", "word"),
        ..options(id, etcd.dir(), etcd.endpoints(), Some(api))
    };
    let member = machines.add(daemon("m1"));
    member.until_role("the lead", leads).await;
    written(&member, "allowed").await;

    // The certificate that etcd shows is another one day, and has expired the next.
    for (identity, expected) in
        [(others.issue(72), "nobody in etcd_ca_file"), (ours.issue(2), "its certificate has expired")]
    {
        etcd.kill(0).await;
        show(&files, &identity);
        etcd.launch(0);
        etcd.serves(0).await;
        troubled(&member, expected).await;
    }
    etcd.kill(0).await;
    show(&files, &server);
    etcd.launch(0);
    written(&member, "again").await;
    assert_eq!(member.read().await.units.len(), 2);
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_are_known_are_let_in_on_v3() {
    only_those_who_are_known_are_let_in(Api::V3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_are_known_are_let_in_on_v2() {
    only_those_who_are_known_are_let_in(Api::V2).await;
}

/// A daemon whose user may only read knows all, changes nothing and says so; once the user may write, it
/// does.
async fn a_user_who_may_only_read_is_told(api: Api) {
    let mut etcd = Etcd::start(1, &[]).await;
    users(&mut etcd, api).await;
    let mut machines = Machines::start(&etcd, &[], Some(api));
    let with = |id: &str, name: &str| Options {
        user: user(name, "word"),
        ..options(id, etcd.dir(), etcd.endpoints(), Some(api))
    };
    let alone = machines.add(with("m2", "reader"));
    says(&alone, "etcd_prefix").await;
    let member = machines.add(with("m1", "daemon"));
    member.until_role("the lead", leads).await;
    written(&member, "allowed").await;
    alone.until("what the other has written", |state| state.units.len() == 1).await;
    troubled(&alone, "etcd_prefix").await;
    let refused = alone.try_propose(vec![crate::write("refused")]).await;
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("etcd_prefix")), "{refused:?}");

    match api {
        Api::V3 => etcd.ctl(&["user", "grant-role", "reader", "daemon"]).await,
        Api::V2 => etcd.ctl_at("2", &["user", "grant", "reader", "--roles", "daemon"]).await,
    };
    alone.until_role("a follower", |role| matches!(role, Role::Follower { .. })).await;
    written(&alone, "allowed-now").await;
    calm(&alone).await;
    machines.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_read_is_told_on_v3() {
    a_user_who_may_only_read_is_told(Api::V3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_read_is_told_on_v2() {
    a_user_who_may_only_read_is_told(Api::V2).await;
}
