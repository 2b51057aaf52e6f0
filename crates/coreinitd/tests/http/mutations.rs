//! Whatever a body holds, the daemon answers; and what it refuses, it has not stored.

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::bench::{Bench, text};
use crate::happen::happen;

/// Every request that has a body, with a body that is good.
const GOOD: &[(&str, &str, &str)] = &[
    (
        "PUT",
        "/fleet/v1/units/a.service",
        r#"{"name":"a.service","desiredState":"launched","options":[
            {"section":"Service","name":"ExecStart","value":"/bin/a"},
            {"section":"X-Fleet","name":"MachineMetadata","value":"a=b"}]}"#,
    ),
    ("PUT", "/fleet/v1/units/known.service", r#"{"desiredState":"loaded"}"#),
    ("PUT", "/fleet/v1/units/t@1.service", r#"{"desiredState":"launched"}"#),
    (
        "PATCH",
        "/fleet/v1/machines",
        r#"[{"op":"add","path":"/m1/metadata/a","value":{"value":"b"}},
            {"op":"remove","path":"/m1/metadata/c"},
            {"op":"replace","path":"/m1/metadata/d","value":"e"}]"#,
    ),
    (
        "POST",
        "/v1/units",
        r#"{"operations":[
            {"op":"set","name":"a.service","text":"[Service]\nExecStart=/a \\\n","desiredState":"launched"},
            {"op":"set","name":"t@2.service","desiredState":"loaded"},
            {"op":"destroy","name":"known.service"}]}"#,
    ),
    ("POST", "/v1/cluster/init", r#"{"name":"lab"}"#),
    ("POST", "/v1/events", r#"{"units":["a.service","known.service"]}"#),
];

/// What proptest puts into a body that was good.
#[derive(Clone, Debug)]
enum Mutation {
    Cut(prop::sample::Index),
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Swap(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::*;
    let at = any::<prop::sample::Index>;
    let telling = prop::sample::select(&b"{}[]\":,\\\n\r\0 eE-+.09@/=%\xff\xc3"[..]);
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        prop::sample::select(vec![
            "null",
            "{}",
            "[]",
            "1e999",
            "-0",
            "\\ud800",
            "\\u0000",
            "\\n",
            "true",
            "[X-Fleet]"
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        (1usize..3000).prop_map(|depth| vec![b'['; depth]),
    ];
    prop_oneof![
        1 => at().prop_map(Cut),
        4 => (at(), prop_oneof![telling, any::<u8>()]).prop_map(|(at, byte)| Replace(at, byte)),
        3 => (at(), piece).prop_map(|(at, piece)| Insert(at, piece)),
        2 => (at(), at()).prop_map(|(one, other)| Swap(one, other)),
        1 => (at(), at()).prop_map(|(from, to)| Repeat(from, to)),
    ]
}

fn mutated(body: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    for mutation in mutations {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match mutation {
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Mutation::Insert(at, piece) => {
                let at = at.index(length);
                bytes.splice(at..at, piece.iter().copied());
            }
            Mutation::Swap(one, other) => bytes.swap(one.index(length), other.index(length)),
            Mutation::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

/// Sends the body, checks the answer; gives the status. A panic of the daemon's is a panic here.
fn ask(method: &str, path: &str, body: Vec<u8>) -> Result<u16, TestCaseError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    runtime.block_on(async {
        let bench = Bench::new();
        for event in ["machine m1 10.0.0.1 c=d", "sleeper known.service", "sleeper t@.service"] {
            happen(&bench, event).await;
        }
        let before = bench.state();
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = bench.send(request.body(Body::from(body)).unwrap()).await;
        let status = response.status().as_u16();
        let state = bench.state();
        if status == 200 && path == "/v1/events" {
            return Ok(status);
        }
        let (_, answer) = text(response).await;
        prop_assert!(matches!(status, 200 | 201 | 204 | 400 | 404 | 409 | 413), "{status} {answer}");
        if status >= 400 {
            prop_assert_eq!(&state.units, &before.units, "{} {}", status, &answer);
            prop_assert_eq!(&state.machines, &before.machines, "{} {}", status, &answer);
            let error: api::fleet::ErrorBody = serde_json::from_str(&answer).unwrap();
            prop_assert_eq!(error.error.code, status);
            prop_assert!(!error.error.message.is_empty());
        }
        // What was stored can be listed, and read again as what it is.
        for unit in state.units.values() {
            let again = cluster::UnitFile::parse(unit.file.text());
            prop_assert_eq!(again.as_ref(), Ok(&unit.file));
        }
        let (listed, _) = bench.ask("GET", "/fleet/v1/units", "").await;
        prop_assert_eq!(listed.as_u16(), 200);
        Ok(status)
    })
}

#[test]
fn good_bodies_are_good() {
    for (method, path, body) in GOOD {
        let status = ask(method, path, body.as_bytes().to_vec()).unwrap();
        assert!(status < 300, "{method} {path}: {status}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8 * ProptestConfig::default().cases))]

    #[test]
    fn a_body_that_was_good_is_taken_or_refused_whole(
        request in prop::sample::select(GOOD),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let (method, path, body) = request;
        ask(method, path, mutated(body, &mutations))?;
    }

    #[test]
    fn any_bytes_are_taken_or_refused_whole(
        request in prop::sample::select(GOOD),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        ask(request.0, request.1, body)?;
    }
}
