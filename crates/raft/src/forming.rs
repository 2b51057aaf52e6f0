//! How a machine without a cluster comes to belong to one.
//!
//! Three equal configurations form one cluster: every machine asks all that are named in `join` who they
//! are. Once all of them answer, none belongs to a cluster, and each has the same picture, each writes the
//! same founding down, and starts as that founder. The founding's id follows from the machines and from the
//! present life of their stores, so that machines that saw different things can never take each other for
//! members. A machine that finds a cluster joins it instead.

use cluster::{FEATURE_LEVEL, MachineId};
use uuid::Uuid;

use crate::disk::{Founder, Identity};
use crate::message::{Formed, Hello};
use crate::twin;
use crate::types::NodeId;

/// Ids below it are founders'; those of later members are log indexes above it.
pub const FOUNDERS_MAX: usize = 63;

/// What a machine without a cluster should do next, given what its peers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Be this founder.
    Found(Identity),
    /// Ask these addresses, in order, to be taken as a member of this cluster.
    Join { cluster: String, addresses: Vec<String> },
    /// Ask again later; the text says what is missing.
    Wait { why: String },
}

/// One address of `join` and what was heard from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub address: String,
    /// The text says why there was no answer.
    pub hello: Result<Hello, String>,
}

/// Decides from what all addresses of `join` said. `me` is this machine's own hello.
pub fn step(me: &Hello, heard: &[Heard]) -> Step {
    let mut hellos: Vec<&Hello> = heard.iter().filter_map(|h| h.hello.as_ref().ok()).collect();
    // Machines whose cluster went on without them have nothing to say.
    let over: Vec<&String> =
        hellos.iter().filter_map(|h| h.formed.as_ref()).flat_map(|f| &f.former).collect();
    hellos.retain(|hello| hello.formed.as_ref().is_none_or(|formed| !over.contains(&&formed.cluster)));
    let newer = |formed: &&Formed| formed.feature_level > FEATURE_LEVEL;
    if let Some(formed) = hellos.iter().filter_map(|h| h.formed.as_ref()).find(newer) {
        let why = format!(
            "the cluster uses feature level {}, and the coreinit of this machine knows {FEATURE_LEVEL}; \
             upgrade coreinit here",
            formed.feature_level
        );
        return Step::Wait { why };
    }
    for formed in hellos.iter().filter_map(|hello| hello.formed.as_ref()) {
        let mine = |f: &&Founder| f.machine == me.machine && f.nonce == me.nonce;
        if let Some(founder) = formed.founders.iter().find(mine) {
            return Step::Found(Identity {
                cluster_id: formed.cluster.clone(),
                node: founder.node,
                machine: me.machine.clone(),
                founders: formed.founders.clone(),
                address: Some(me.address.clone()),
            });
        }
    }
    let mut clusters: Vec<&str> =
        hellos.iter().filter_map(|h| h.formed.as_ref()).map(|f| f.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    match clusters[..] {
        [] => {}
        [cluster] => {
            let formed = hellos.iter().filter(|hello| hello.formed.is_some());
            let leaders = formed.clone().filter_map(|h| h.formed.as_ref()?.leader.clone());
            let mut addresses: Vec<String> = leaders.collect();
            addresses.extend(formed.map(|hello| hello.address.clone()));
            let mut seen = Vec::new();
            addresses.retain(|address| {
                let new = !seen.contains(address);
                seen.push(address.clone());
                new
            });
            return Step::Join { cluster: cluster.into(), addresses };
        }
        _ => {
            let why = format!("the machines of `join` belong to different clusters: {}", clusters.join(", "));
            return Step::Wait { why };
        }
    }
    let missing: Vec<String> =
        heard.iter().filter_map(|h| Some(format!("{} ({})", h.address, h.hello.as_ref().err()?))).collect();
    if !missing.is_empty() {
        return Step::Wait { why: format!("waiting for {}", missing.join(", ")) };
    }
    let mut founders: Vec<&Hello> = hellos;
    founders.sort_by(|a, b| a.machine.cmp(&b.machine));
    let same =
        founders.windows(2).find(|pair| pair[0].machine == pair[1].machine && pair[0].nonce != pair[1].nonce);
    if let Some([one, other]) = same {
        let (one, other) = (one.address.clone(), other.address.clone());
        return Step::Wait { why: format!("{one} and {other} have the same machine id; {}", twin::WAY_OUT) };
    }
    founders.dedup_by(|a, b| a.machine == b.machine);
    if founders.len() != me.expects {
        let names: Vec<&str> = founders.iter().map(|f| f.machine.as_str()).collect();
        let (count, expects) = (founders.len(), me.expects);
        return Step::Wait {
            why: format!(
                "`join` leads to {count} machines ({}), but bootstrap_expect is {expects}; make them agree",
                names.join(", ")
            ),
        };
    }
    if let Some(other) = founders.iter().find(|f| f.expects != me.expects) {
        let why = format!(
            "bootstrap_expect is {} here and {} on {}; give all machines the same configuration",
            me.expects, other.expects, other.address
        );
        return Step::Wait { why };
    }
    if !founders.iter().any(|f| f.machine == me.machine && f.nonce == me.nonce) {
        return Step::Wait { why: "waiting for the machines of `join` to form a cluster".into() };
    }
    Step::Found(found(&founders, &me.machine))
}

/// The founding that these machines make, as `machine` keeps it. `founders` are sorted by machine.
pub fn found(founders: &[&Hello], machine: &str) -> Identity {
    let founders: Vec<Founder> = founders
        .iter()
        .zip(1..)
        .map(|(hello, node)| Founder {
            node,
            machine: hello.machine.clone(),
            address: hello.address.clone(),
            nonce: hello.nonce.clone(),
        })
        .collect();
    let text: Vec<String> = founders.iter().map(|f| format!("{} {}", f.machine, f.nonce)).collect();
    let cluster_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.join("\n").as_bytes()).simple().to_string();
    let me = founders.iter().find(|f| f.machine == machine);
    let (node, address) = (me.map_or(0, |f| f.node), me.map(|f| f.address.clone()));
    Identity { cluster_id, node, machine: machine.into(), founders, address }
}

/// The id of a member that joins by the log entry at `index`. Indexes are never used twice, so neither are
/// ids, and none is a founder's.
pub fn joined_node(index: u64) -> NodeId {
    index + FOUNDERS_MAX as u64 + 1
}

/// `join` as people write it, with the port that they leave out.
pub fn with_port(address: &str, port: u16) -> String {
    let has_port = match address.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => address.matches(':').count() == 1,
    };
    if has_port { address.into() } else { format!("{address}:{port}") }
}

/// `machine` as the state names it; peers' texts are not known to be good.
pub fn machine_id(text: &str) -> Option<MachineId> {
    MachineId::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(machine: &str) -> Hello {
        Hello {
            machine: machine.into(),
            address: format!("{machine}:7340"),
            nonce: format!("n-{machine}"),
            version: "0".into(),
            expects: 3,
            formed: None,
        }
    }

    fn heard(hellos: &[Hello]) -> Vec<Heard> {
        hellos.iter().map(|h| Heard { address: h.address.clone(), hello: Ok(h.clone()) }).collect()
    }

    #[test]
    fn three_that_see_each_other_found_the_same_cluster() {
        let all = [hello("b"), hello("c"), hello("a")];
        let founded: Vec<Identity> = all
            .iter()
            .map(|me| match step(me, &heard(&all)) {
                Step::Found(identity) => identity,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(founded.iter().map(|i| i.node).collect::<Vec<_>>(), [2, 3, 1]);
        assert!(
            founded
                .iter()
                .all(|i| i.founders == founded[0].founders && i.cluster_id == founded[0].cluster_id)
        );
    }

    #[test]
    fn another_life_of_a_store_is_another_cluster() {
        let before = [hello("a"), hello("b"), hello("c")];
        let after = [Hello { nonce: "other".into(), ..hello("a") }, hello("b"), hello("c")];
        assert_ne!(step(&before[1], &heard(&before)), step(&after[1], &heard(&after)));
    }

    #[test]
    fn one_that_is_missing_is_waited_for_by_name() {
        let mut all = heard(&[hello("a"), hello("b"), hello("c")]);
        all[2].hello = Err("connection refused".into());
        let Step::Wait { why } = step(&hello("a"), &all) else { panic!("must wait") };
        assert!(why.contains("c:7340 (connection refused)"), "{why}");
    }

    #[test]
    fn a_founder_that_missed_the_founding_takes_it_over_and_a_stranger_joins() {
        let all = [hello("a"), hello("b"), hello("c")];
        let Step::Found(identity) = step(&all[0], &heard(&all)) else { panic!("must found") };
        let formed = Formed {
            cluster: identity.cluster_id.clone(),
            founders: identity.founders.clone(),
            leader: None,
            former: Vec::new(),
            feature_level: 1,
        };
        let told = heard(&[Hello { formed: Some(formed), ..hello("a") }, hello("b")]);
        assert_eq!(
            step(&hello("b"), &told),
            Step::Found(Identity {
                node: 2,
                machine: "b".into(),
                address: Some("b:7340".into()),
                ..identity.clone()
            })
        );
        let wiped = Hello { nonce: "new".into(), ..hello("b") };
        assert!(matches!(step(&wiped, &told), Step::Join { cluster, .. } if cluster == identity.cluster_id));
    }

    /// Of a cluster that goes on from cluster `old`.
    fn formed(cluster: &str, former: &[&str]) -> Option<Formed> {
        let former = former.iter().map(|id| id.to_string()).collect();
        let (founders, leader) = (Vec::new(), None);
        Some(Formed { cluster: cluster.into(), founders, leader, former, feature_level: FEATURE_LEVEL })
    }

    #[test]
    fn the_cluster_that_goes_on_is_joined_and_not_the_one_before() {
        let (a, b) = (Hello { formed: formed("new", &["old"]), ..hello("a") }, hello("b"));
        let stale = Hello { formed: formed("old", &[]), ..hello("c") };
        let expected = Step::Join { cluster: "new".into(), addresses: vec!["a:7340".into()] };
        assert_eq!(step(&b, &heard(&[a.clone(), b.clone(), stale.clone()])), expected);
        let stranger = Hello { formed: formed("other", &[]), ..stale };
        assert!(matches!(step(&b, &heard(&[a, b.clone(), stranger])), Step::Wait { .. }));
    }

    #[test]
    fn a_machine_that_knows_less_than_the_cluster_does_not_join() {
        let newer = formed("c", &[]).map(|formed| Formed { feature_level: FEATURE_LEVEL + 1, ..formed });
        let all = [hello("a"), Hello { formed: newer, ..hello("b") }];
        let Step::Wait { why } = step(&hello("a"), &heard(&all)) else { panic!("must wait") };
        assert!(why.contains("upgrade coreinit here"), "{why}");
    }

    #[test]
    fn two_machines_with_one_id_found_nothing() {
        let all =
            [hello("a"), Hello { address: "c:7340".into(), nonce: "other".into(), ..hello("a") }, hello("b")];
        for me in &all {
            let Step::Wait { why } = step(me, &heard(&all)) else { panic!("must wait") };
            assert!(why.starts_with("a:7340 and c:7340 have the same machine id; "), "{why}");
        }
        // Two names of one machine are no two machines.
        let all = [hello("a"), hello("a"), hello("b"), hello("c")];
        assert!(matches!(step(&all[0], &heard(&all)), Step::Found(_)));
    }

    #[test]
    fn different_expectations_are_told() {
        let all = [hello("a"), Hello { expects: 5, ..hello("b") }, hello("c")];
        let Step::Wait { why } = step(&all[0], &heard(&all)) else { panic!("must wait") };
        assert!(why.contains("bootstrap_expect is 3 here and 5"), "{why}");
    }

    #[test]
    fn a_port_is_added_where_none_is() {
        for (given, expected) in [
            ("h1", "h1:7340"),
            ("h1:1", "h1:1"),
            ("[::1]", "[::1]:7340"),
            ("[::1]:2", "[::1]:2"),
            ("10.0.0.1", "10.0.0.1:7340"),
        ] {
            assert_eq!(with_port(given, 7340), expected);
        }
    }
}
