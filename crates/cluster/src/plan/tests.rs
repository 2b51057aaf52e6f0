//! Tables of cases for plan.

use super::*;
use Condition::*;

/// One unit, `a.service` unless said otherwise: what is wanted, what is there, and what has to be done, as
/// words.
fn words(wanted: &[(&str, Desired)], current: &[(&str, Current)]) -> String {
    let name = |text: &str| UnitName::new(text).expect("a unit name");
    let wanted = wanted.iter().map(|(n, desired)| (name(n), desired.clone())).collect();
    let current = current.iter().map(|(n, now)| (name(n), now.clone())).collect();
    let list = |units: &[UnitName]| units.iter().map(|unit| unit.stem()).collect::<Vec<_>>().join("+");
    let word = |action: &Action| match action {
        Action::Write { unit, .. } => format!("write {}", unit.stem()),
        Action::Link { units } => format!("link {}", list(units)),
        Action::Reload => "reload".into(),
        Action::Start { unit, generation } => format!("start {} {generation}", unit.stem()),
        Action::Stop { unit, generation: Some(generation) } => format!("stop {} {generation}", unit.stem()),
        Action::Stop { unit, generation: None } => format!("stop {}", unit.stem()),
        Action::Settle { unit, generation } => format!("settle {} {generation}", unit.stem()),
        Action::Remove { units } => format!("remove {}", list(units)),
    };
    plan(&wanted, &current).iter().map(word).collect::<Vec<_>>().join(", ")
}

fn text(command: &str) -> UnitFile {
    UnitFile::parse(&format!("[Service]\nExecStart={command}\n")).expect("a unit file")
}

const JOB: fn(JobKind, u64) -> Option<Job> = |kind, g| Some(Job { kind, generation: Some(Generation(g)) });
const OUT: Option<Job> = Some(Job { kind: JobKind::Stop, generation: None });

fn launched() -> Desired {
    Desired { file: text("new"), generation: Generation(5), launched: true }
}

fn loaded() -> Desired {
    Desired { launched: false, ..launched() }
}

/// The file is there and known to systemd; `done` is the generation carried out last, 0 for none.
fn held(command: &str, condition: Condition, done: u64, job: Option<Job>) -> Current {
    let done = Some(Generation(done)).filter(|done| done.0 > 0);
    Current { file: Some(text(command).hash()), linked: true, condition, needs_reload: false, done, job }
}

#[test]
fn brings_one_unit_to_what_is_wanted() {
    let check = |wanted: Option<Desired>, now: Option<Current>, expected: &str| {
        let wanted: Vec<_> = wanted.into_iter().map(|wanted| ("a.service", wanted)).collect();
        let current: Vec<_> = now.clone().into_iter().map(|now| ("a.service", now)).collect();
        assert_eq!(words(&wanted, &current), expected, "{wanted:?} {now:?}");
    };
    let (start, stop) = (JobKind::Start, JobKind::Stop);
    // New here.
    check(Some(launched()), None, "write a, link a, start a 5");
    check(Some(loaded()), None, "write a, link a, settle a 5");
    check(Some(launched()), Some(NOTHING), "write a, link a, start a 5");
    check(
        Some(launched()),
        Some(Current { linked: false, ..held("new", Down, 0, None) }),
        "link a, start a 5",
    );
    // Carried out: nothing more, whatever it has become since.
    for condition in [Up, Starting, Stopping, Down, Failed] {
        check(Some(launched()), Some(held("new", condition, 5, None)), "");
        check(Some(loaded()), Some(held("new", condition, 5, None)), "");
    }
    // A wish to be carried out, once.
    for condition in [Up, Starting, Stopping, Down, Failed] {
        check(Some(launched()), Some(held("new", condition, 4, None)), "start a 5");
        check(Some(launched()), Some(held("new", condition, 4, JOB(start, 5))), "");
        check(Some(launched()), Some(held("new", condition, 4, JOB(start, 4))), "start a 5");
        check(Some(launched()), Some(held("new", condition, 4, JOB(stop, 4))), "start a 5");
        check(Some(launched()), Some(held("new", condition, 0, OUT)), "start a 5");
        check(Some(loaded()), Some(held("new", condition, 4, JOB(stop, 5))), "");
        check(Some(loaded()), Some(held("new", condition, 4, JOB(start, 4))), "stop a 5");
    }
    check(Some(loaded()), Some(held("new", Up, 4, None)), "stop a 5");
    check(Some(loaded()), Some(held("new", Starting, 4, None)), "stop a 5");
    check(Some(loaded()), Some(held("new", Stopping, 4, None)), "settle a 5");
    check(Some(loaded()), Some(held("new", Failed, 4, None)), "settle a 5");
    // Another text.
    check(Some(launched()), Some(held("old", Up, 4, None)), "stop a");
    check(Some(launched()), Some(held("old", Starting, 3, JOB(start, 4))), "stop a");
    check(Some(launched()), Some(held("old", Stopping, 0, OUT)), "");
    check(Some(launched()), Some(held("old", Stopping, 4, None)), "");
    check(Some(launched()), Some(held("old", Down, 0, None)), "write a, link a, reload, start a 5");
    check(Some(loaded()), Some(held("old", Failed, 4, None)), "write a, link a, reload, settle a 5");
    // The file was lost or edited by hand: put right, and what runs runs on.
    check(Some(launched()), Some(held("edited", Up, 5, None)), "write a, link a, reload");
    check(Some(launched()), Some(Current { file: None, ..held("", Up, 5, None) }), "write a, link a, reload");
    check(Some(launched()), Some(Current { needs_reload: true, ..held("new", Up, 5, None) }), "reload");
    check(
        Some(launched()),
        Some(Current { needs_reload: true, ..held("new", Down, 4, None) }),
        "reload, start a 5",
    );
    // No business here.
    check(None, Some(held("x", Up, 5, None)), "stop a");
    check(None, Some(held("x", Starting, 4, JOB(start, 5))), "stop a");
    check(None, Some(held("x", Down, 4, JOB(start, 5))), "stop a");
    check(None, Some(held("x", Stopping, 0, OUT)), "");
    check(None, Some(held("x", Stopping, 5, None)), "");
    check(None, Some(held("x", Down, 0, OUT)), "");
    check(None, Some(held("x", Down, 5, None)), "remove a");
    check(None, Some(held("x", Failed, 5, None)), "remove a");
    check(None, Some(Current { file: None, ..held("", Down, 5, None) }), "remove a");
    check(None, Some(Current { condition: Up, ..NOTHING }), "");
}

#[test]
fn orders_the_steps_of_many() {
    let check = |wanted: &[(&str, Desired)], current: &[(&str, Current)], expected: &str| {
        assert_eq!(words(wanted, current), expected);
    };
    check(
        &[
            ("a.service", launched()),
            ("b.service", loaded()),
            ("c.service", launched()),
            ("d.service", launched()),
        ],
        &[
            ("b.service", Current { needs_reload: true, ..held("new", Up, 4, None) }),
            ("c.service", held("old", Down, 4, None)),
            ("d.service", held("old", Up, 4, None)),
            ("x.service", held("x", Down, 4, None)),
            ("y.service", held("x", Failed, 4, None)),
            ("z.service", held("x", Up, 4, None)),
        ],
        "stop z, stop b 5, stop d, write a, write c, link a+c, reload, start a 5, start c 5, remove x+y",
    );
    // The socket first: it cannot start once its service runs.
    check(
        &[("a.service", launched()), ("z.socket", launched())],
        &[],
        "write a, write z, link a+z, start z 5, start a 5",
    );
    // The socket waits until its service's text is there; an unrelated one does not.
    let service_waits = ("a.service", held("old", Up, 4, None));
    check(
        &[("a.service", loaded()), ("a.socket", launched()), ("b.socket", launched())],
        std::slice::from_ref(&service_waits),
        "stop a, write a, write b, link a+b, start b 5",
    );
    let names_it = UnitFile::parse("[Socket]\nService=a.service\n").expect("a unit file");
    check(
        &[("a.service", loaded()), ("b.socket", Desired { file: names_it, ..launched() })],
        &[service_waits],
        "stop a, write b, link b",
    );
}
