//! The table against the routes that there are, and against the document that people read.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use cluster::MachineId;
use store::MemoryStore;
use tower::ServiceExt;

use super::*;
use crate::http::{Access, HttpParts, InitError, router};

fn served() -> Router {
    served_by(MemoryStore::new(MachineId::new("m1").unwrap()))
}

fn served_by(store: MemoryStore) -> Router {
    let parts = HttpParts {
        store: Arc::new(store),
        machine: MachineId::new("m1").unwrap(),
        version: "1".into(),
        init: Arc::new(|_| Box::pin(async { Err(InitError::Exists { id: "c1".into() }) })),
        ask: Arc::new(|_, _| Box::pin(async { Err("no machine answers here".into()) })),
        signs: Arc::default(),
        membership: None,
        access: Access::default(),
    };
    router(parts).0
}

/// Every path that the router knows, from what it tells of itself.
fn routes() -> BTreeSet<String> {
    let told = format!("{:?}", served());
    let quoted = told.split('"').skip(1).step_by(2);
    let routes: BTreeSet<String> = quoted
        .filter(|text| text.starts_with('/') && !text.contains("__private"))
        .map(str::to_string)
        .collect();
    assert!(routes.len() > 25 && routes.contains("/v1/units/{name}"), "the routes are found: {told}");
    routes
}

#[test]
fn every_route_is_in_the_table() {
    let missing: Vec<String> = routes()
        .into_iter()
        .filter(|route| !TABLE.iter().any(|(_, listed, _)| *listed == as_listed(route)))
        .collect();
    assert!(missing.is_empty(), "add to the table in roles.rs, and to docs/roles.md: {missing:?}");
}

#[test]
fn the_table_has_no_route_that_is_not_there() {
    let routes = routes();
    let strange: Vec<_> = TABLE.iter().filter(|(_, route, _)| !routes.contains(*route)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// A method that is not in the table is not served: a row that was forgotten would be found here.
#[tokio::test]
async fn what_is_not_in_the_table_is_not_served() {
    let router = served();
    for route in routes() {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if need(method, Some(&route)) != (Need { role: Operator, is_change: false }) {
                continue;
            }
            let path = route.replace("{name}", "a.service");
            let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            request.extensions_mut().insert(Caller::local(0, None, "/run/coreinit.sock"));
            let status = router.clone().oneshot(request).await.unwrap().status();
            // fleet's discovery says it with 400.
            let refused = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::BAD_REQUEST];
            assert!(refused.contains(&status), "{method} {route} answers {status}, and is not in the table");
        }
    }
}

#[test]
fn what_is_not_known_is_for_administrators() {
    assert_eq!(need("POST", Some("/v1/new")), Need { role: Admin, is_change: true });
    assert_eq!(need("GET", Some("/v1/new")).role, Admin);
    assert_eq!(need("GET", None).role, Viewer);
    assert_eq!(need("HEAD", Some("/v1/units")).role, Viewer);
    for prefix in ["/fleet/v1", "/flt/v1", "/v1-alpha"] {
        let need = need("DELETE", Some(&format!("{prefix}/units/{{name}}")));
        assert_eq!(need, Need { role: Operator, is_change: true });
    }
}

/// The document has a line for each row, and no other.
#[test]
fn people_read_the_same_table() {
    let text = include_str!("../../../../../docs/roles.md");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let (method, route) = cells.next()?.trim().trim_end_matches('`').split_once(' ')?;
        route
            .starts_with('/')
            .then(|| format!("{method} {route} {}", cells.next().unwrap_or_default().trim()))
    });
    let written: Vec<String> = rows.collect();
    let held: Vec<String> =
        TABLE.iter().map(|(method, route, role)| format!("{method} {route} {role}")).collect();
    assert_eq!(written, held);
}

/// Every row for every role: who has it gets past the check, who has less is told what it takes.
#[tokio::test]
async fn each_role_may_do_what_the_table_says() {
    let router = served_to_people();
    for (method, route, least) in TABLE {
        for role in [Viewer, Operator, Admin] {
            let path = route.replace("{name}", "a.service");
            let mut request = Request::builder().method(*method).uri(&path).body(Body::empty()).unwrap();
            request.extensions_mut().insert(person(role));
            let response = router.clone().oneshot(request).await.unwrap();
            let refused = response.status() == StatusCode::FORBIDDEN;
            assert_eq!(refused, role < *least, "{role}: {method} {route}: {}", response.status());
            if refused {
                let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
                let text = String::from_utf8_lossy(&body).into_owned();
                let told = format!("this needs the role {least}, and {role} has the role {role}");
                assert!(text.contains(&told), "{text}");
            }
        }
    }
}

/// Whoever may do it: what a page sends changes nothing, and what a page may read it reads as before.
#[tokio::test]
async fn pages_change_nothing() {
    let router = served_to_people();
    for (method, route, _) in TABLE {
        let path = route.replace("{name}", "a.service");
        let request = Request::builder().method(*method).uri(&path).header("Origin", "http://evil.example");
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(person(Admin));
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status() == StatusCode::FORBIDDEN, *method != "GET", "{method} {route}");
    }
}

/// Machines, and requests that came by no door, may not even look.
#[tokio::test]
async fn machines_and_strangers_are_refused() {
    let router = served_to_people();
    let from = ([127, 0, 0, 1], 1).into();
    let machine = Caller::shown(identity::Shown::Machine(MachineId::new("m1").unwrap()), from);
    let nobody = Caller::shown(identity::Shown::Nobody, from);
    for (caller, told) in
        [(Some(machine), "is machine m1's"), (Some(nobody), "not known"), (None, "not known")]
    {
        for (method, route, _) in TABLE {
            let path = route.replace("{name}", "a.service");
            let mut request = Request::builder().method(*method).uri(&path).body(Body::empty()).unwrap();
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {route}");
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains(told), "{body:?}");
        }
    }
}

/// What the doors without certificates give.
#[tokio::test]
async fn a_door_has_a_role() {
    let router = served_to_people();
    let check = async |caller: Caller, method: &str, path: &str, is_refused: bool| {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(caller.clone());
        let status = router.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status == StatusCode::FORBIDDEN, is_refused, "{caller}: {method} {path}: {status}");
    };
    let socket = |uid| Caller::local(uid, None, "/run/coreinit.sock");
    let tcp = || Caller::anonymous(([127, 0, 0, 1], 1).into());
    check(socket(0), "POST", "/v1/cluster/invite", false).await;
    check(socket(1000), "POST", "/v1/cluster/invite", false).await;
    check(tcp(), "POST", "/v1/cluster/invite", true).await;
    check(tcp(), "POST", "/v1/cluster/init", true).await;
    check(tcp(), "DELETE", "/v1-alpha/units/a.service", false).await;
}

fn person(role: PersonRole) -> Caller {
    let name = cluster::PersonName::new(role.as_str()).unwrap();
    let certificate = identity::PersonCertificate { name, role, fingerprint: role.to_string() };
    Caller::shown(identity::Shown::Person(certificate), ([127, 0, 0, 1], 1).into())
}

/// With one person for each role, of its name.
fn served_to_people() -> Router {
    let store = MemoryStore::new(MachineId::new("m1").unwrap());
    let mut state = cluster::ClusterState::default();
    for role in [Viewer, Operator, Admin] {
        let (fingerprint, invited_by) = (role.to_string(), String::new());
        let person = cluster::Person { role, fingerprint, expires: u64::MAX, invited_by };
        let name = cluster::PersonName::new(role.as_str()).unwrap();
        state.put(cluster::Change::Person(name, Some(person)));
    }
    store.set_state(Arc::new(state));
    served_by(store)
}
