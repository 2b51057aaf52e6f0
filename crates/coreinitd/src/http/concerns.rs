//! What is wrong with the cluster and with this machine though it works, in words that say what to do about
//! it. For `GET /v1/status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use cluster::{ClusterState, DesiredState, MachineId, UnitName};
use store::{MemberVitals, Role};

use super::Room;
use super::health::ills;
use super::rotation;
use super::view::{Snapshot, is_lost};

/// A certificate is renewed when at least a fifth of its week is left.
const CERTIFICATE_LEFT_MIN: Duration = Duration::from_secs(24 * 3600);
/// A disk is nearly full when less than this and less than a tenth of it is free.
const DISK_FREE_MIN: u64 = 1 << 30;
/// Clocks that are kept by a time service differ by milliseconds.
const SKEW_SECONDS_MIN: u64 = 2;
/// Names that are told; more are counted.
const NAMES_MAX: usize = 3;

pub(super) fn concerns(room: &Room, snapshot: &Snapshot) -> Vec<String> {
    let signs = &room.parts.signs;
    let mut concerns = ills(room);
    let role = room.parts.store.role().borrow().clone();
    let is_led = matches!(role, Role::Leader { .. } | Role::Follower { .. });
    // Without a leader it is told in another place.
    if is_led {
        concerns.extend(room.parts.store.trouble());
    }
    if is_led || role == Role::Leaderless {
        concerns.extend(machines(&snapshot.state));
        // Without a leader nobody knows who is there.
        if is_led {
            concerns.extend(voters(&snapshot.state, &room.parts.store.vitals().members));
        }
        concerns.extend(clocks(&snapshot.state, &signs.clocks_ahead()));
        concerns.extend(units(snapshot));
        concerns.extend(rotation::concern(&snapshot.state));
    }
    let left =
        signs.certificate_ends().map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
    concerns.extend(left.and_then(certificate));
    if signs.is_exposed() {
        concerns.push(
            "nothing between the machines is encrypted, and whoever reaches their port may do anything: set \
             cluster_secret_file, the same on all machines"
                .into(),
        );
    }
    let disk = &signs.disk;
    concerns.extend(disk_space(
        disk.free_bytes.load(Ordering::Relaxed),
        disk.total_bytes.load(Ordering::Relaxed),
    ));
    concerns
}

fn machines(state: &ClusterState) -> Option<String> {
    let lost = state.machines.iter().filter(|(id, _)| is_lost(state, id));
    let lost: Vec<String> = lost.map(|(_, machine)| machine.info.name.clone()).collect();
    let (names, is) = (names(&lost)?, if lost.len() == 1 { "is" } else { "are" });
    Some(format!("{names} {is} lost, and other machines run their units: see `corectl list-machines`"))
}

/// Clocks that differ from this machine's.
fn clocks(state: &ClusterState, ahead: &BTreeMap<MachineId, i64>) -> Option<String> {
    let wrong = ahead.iter().filter_map(|(id, micros)| {
        let seconds = micros.unsigned_abs() / 1_000_000;
        let name = state.machines.get(id).map_or(id.as_str(), |machine| &machine.info.name);
        let way = if *micros < 0 { "behind" } else { "ahead" };
        (SKEW_SECONDS_MIN <= seconds).then(|| format!("{name} is {seconds} s {way}"))
    });
    let wrong = names(&wrong.collect::<Vec<_>>())?;
    Some(format!("clocks differ from this machine's: {wrong}; look at their time services (`timedatectl`)"))
}

/// How many machines may be lost now, where that is fewer than people expect.
fn voters(state: &ClusterState, members: &[MemberVitals]) -> Option<String> {
    let voters: Vec<&MemberVitals> = members.iter().filter(|member| member.votes).collect();
    let living = voters.iter().filter(|voter| !is_lost(state, &voter.machine)).count();
    let spare = living.checked_sub(voters.len() / 2 + 1)?;
    match (voters.len(), spare) {
        (_, 1..) => None,
        (1, 0) => {
            let learners = members.iter().filter(|member| !member.votes && !is_lost(state, &member.machine));
            let missing = match learners.count() {
                0 => ": add two, and the loss of any one does no harm",
                1 => ": add one more, and the loss of any one does no harm",
                _ => "",
            };
            Some(format!("no machine may be lost, since one alone votes{missing}"))
        }
        (2, 0) => Some(
            "no machine may be lost, since both of two must agree: add one, and the loss of \
             any one does no harm"
                .into(),
        ),
        (count, 0) => Some(format!(
            "no further machine may be lost, since {living} of {count} voters are there: bring \
             the others back, \
             or add machines, which take their places"
        )),
    }
}

fn units(snapshot: &Snapshot) -> Vec<String> {
    let state = &*snapshot.state;
    let wanted =
        |name: &UnitName| state.units.get(name).is_some_and(|unit| unit.desired != DesiredState::Inactive);
    let failed = state.observed.iter().filter(|((name, machine), seen)| {
        &*seen.active == "failed" && wanted(name) && !is_lost(state, machine)
    });
    let failed: BTreeSet<&UnitName> = failed.map(|((name, _), _)| name).collect();
    let failed: Vec<String> = failed.into_iter().map(ToString::to_string).collect();
    let unplaced: Vec<String> = snapshot.unplaced.keys().map(ToString::to_string).collect();
    let mut told = Vec::new();
    if let Some(names) = names(&failed) {
        let count = counted(failed.len(), "unit has failed", "units have failed");
        told.push(format!("{count} ({names}): `corectl status {}` says why", failed[0]));
    }
    if let Some(names) = names(&unplaced) {
        let count = counted(unplaced.len(), "unit is on no machine", "units are on no machine");
        told.push(format!("{count} ({names}): `corectl explain {}` says why", unplaced[0]));
    }
    told
}

fn certificate(left: Duration) -> Option<String> {
    if CERTIFICATE_LEFT_MIN <= left {
        return None;
    }
    let hours = left.as_secs() / 3600;
    Some(match left.is_zero() {
        true => {
            "this machine's certificate has ended, and no other machine talks to it: look at its clock, and \
                 restart coreinitd"
                .into()
        }
        false => format!(
            "this machine's certificate ends in {hours} h and was not renewed: \
             `journalctl -u coreinitd` says why"
        ),
    })
}

fn disk_space(free: u64, total: u64) -> Option<String> {
    (free < DISK_FREE_MIN && free < total / 10).then(|| {
        format!(
            "the disk under the store has {} MiB free of {}: make room there, since a \
             daemon that cannot write \
             ends",
            free >> 20,
            total >> 20
        )
    })
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `a`, `a and b`, `a, b, c and 4 more`.
fn names(all: &[String]) -> Option<String> {
    Some(match all {
        [] => return None,
        [one] => one.clone(),
        [some @ .., last] if all.len() <= NAMES_MAX => format!("{} and {last}", some.join(", ")),
        _ => format!("{} and {} more", all[..NAMES_MAX].join(", "), all.len() - NAMES_MAX),
    })
}

#[cfg(test)]
mod tests {
    use cluster::{Command, MachineInfo, Revision};

    use super::*;

    #[test]
    fn few_names_are_told() {
        let check = |all: &[&str], expected: Option<&str>| {
            let all: Vec<String> = all.iter().map(|name| name.to_string()).collect();
            assert_eq!(names(&all).as_deref(), expected);
        };
        check(&[], None);
        check(&["a"], Some("a"));
        check(&["a", "b"], Some("a and b"));
        check(&["a", "b", "c"], Some("a, b and c"));
        check(&["a", "b", "c", "d", "e"], Some("a, b, c and 2 more"));
    }

    #[test]
    fn it_is_told_how_many_machines_may_be_lost() {
        let look = |ready: usize, lost: usize, learners: usize, expected: Option<&str>| {
            let mut state = ClusterState::default();
            let id = |n: usize| MachineId::new(&format!("m{n}")).unwrap();
            let ids: Vec<MachineId> = (0..learners + ready + lost).map(id).collect();
            let mut commands: Vec<Command> = Vec::new();
            for id in &ids {
                commands.push(Command::RegisterMachine { id: id.clone(), info: MachineInfo::default() });
            }
            for id in &ids[learners + ready..] {
                commands.push(Command::MarkLost { machine: id.clone() });
            }
            state.apply_all(Revision(1), &commands);
            let member = |(n, id): (usize, &MachineId)| MemberVitals {
                machine: id.clone(),
                votes: learners <= n,
                lag: None,
            };
            let told = voters(&state, &ids.iter().enumerate().map(member).collect::<Vec<_>>());
            match (&told, expected) {
                (None, None) => {}
                (Some(told), Some(part)) if told.contains(part) => {}
                _ => panic!("{ready} ready, {lost} lost: {told:?}"),
            }
            told
        };
        let check = |ready, lost, expected| drop(look(ready, lost, 0, expected));
        check(0, 0, None);
        check(1, 0, Some("add two"));
        look(1, 0, 1, Some("add one more"));
        let waiting = look(1, 0, 2, Some("since one alone votes"));
        assert!(!waiting.unwrap().contains("add"), "two wait for their votes");
        check(2, 0, Some("add one"));
        check(3, 0, None);
        check(2, 1, Some("2 of 3 voters"));
        check(1, 2, None);
        check(4, 1, None);
        check(3, 2, Some("3 of 5 voters"));
        check(4, 0, None);
    }

    #[test]
    fn clocks_that_differ_are_told() {
        let ahead = [("m2", 1_900_000), ("m3", -61_000_000), ("m4", 7_000_000)];
        let ahead = ahead.map(|(id, micros)| (MachineId::new(id).unwrap(), micros));
        let told = clocks(&ClusterState::default(), &BTreeMap::from(ahead)).unwrap();
        assert!(told.contains("m3 is 61 s behind and m4 is 7 s ahead;"), "{told}");
        assert_eq!(clocks(&ClusterState::default(), &BTreeMap::new()), None);
    }

    #[test]
    fn ends_are_told_before_they_come() {
        let hour = Duration::from_secs(3600);
        assert_eq!(certificate(30 * hour), None);
        assert!(certificate(20 * hour).unwrap().contains("ends in 20 h"));
        assert!(certificate(Duration::ZERO).unwrap().contains("has ended"));
        assert_eq!(disk_space(0, 0), None);
        assert_eq!(disk_space(5 << 30, 1 << 40), None, "a small part, and plenty");
        assert_eq!(disk_space(40 << 20, 64 << 20), None, "little, and most of it");
        assert!(disk_space(5 << 20, 64 << 20).unwrap().contains("5 MiB free of 64"));
    }
}
