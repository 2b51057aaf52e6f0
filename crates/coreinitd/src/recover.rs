//! `corectl cluster recover`: when most of the voters are gone for good, one survivor's store becomes the
//! first member of the cluster's next life, under a new id. While no daemon runs here, and only when nobody
//! else is left who could go on.

use anyhow::{Context, bail};
use raft::offline::{self, KeptMember, Upto};
use raft::renewal::{self, Replace};

use crate::by_hand;
use crate::config::Config;
use crate::keys::offline_transport;
use crate::run::kind;

/// Does it when `sure`; else only tells what would be done, as an error. What people are told.
pub async fn recover(config: &Config, sure: bool) -> anyhow::Result<String> {
    if config.etcd.is_some() {
        bail!("with backend = \"etcd\" the state is in etcd: recover that, see its own documents");
    }
    let (dir, kind) = (&config.data_dir, kind(config.engine));
    let survey = offline::survey(dir, kind.clone(), Upto::Written).await.with_context(|| {
        format!("cannot use the store in {}; `corectl cluster restore` needs none", dir.display())
    })?;
    let identity = survey.identity.context("the store here is of no cluster; there is nothing to recover")?;
    let state = survey.state;
    let transport = offline_transport(config)?;
    let (living, leader) = renewal::alive(transport, &identity.cluster_id, &survey.members).await;
    if let Some(leader) = leader {
        bail!("the cluster has a leader, at {leader}: nothing is lost; start coreinitd here instead");
    }
    let voters = survey.members.iter().filter(|kept| kept.votes).count();
    let mine = survey.members.iter().filter(|kept| kept.votes && kept.is_self).count();
    let here = living.iter().filter(|kept| kept.votes).count() + mine;
    if here > voters / 2 {
        bail!(
            "{here} of the cluster's {voters} voters are there, this machine among them ({}): that is a \
             majority; start coreinitd here instead",
            told(living.iter())
        );
    }
    let others = told(survey.members.iter().filter(|kept| !kept.is_self));
    let name = state.cluster.as_ref().map(|cluster| cluster.name.as_str()).unwrap_or_default();
    let what = format!(
        "cluster {name} ({}) up to revision {}: {} units, {} machines",
        identity.cluster_id,
        state.revision,
        state.units.len(),
        state.machines.len()
    );
    if !sure {
        bail!(
            "nothing was changed yet. This would make a new cluster of this machine alone, of what it knows \
             of {what}. What others acknowledged and this machine had not yet heard of is lost. The stores \
             of {others} can never be used again: each of them joins anew, empty. Do it only when so many \
             of them are gone for good that no majority can come back, and on the one machine with the \
             highest revision. Say --yes to do it"
        );
    }
    let next = renewal::renewed(&state)?;
    let put = renewal::put(
        dir,
        kind,
        (&config.machine, config.peer_address()),
        &next,
        (Replace::Anything, "before-recovery"),
    );
    let aside = put.await.context("nothing was changed")?;
    by_hand::keep_secret(config)?;
    let id = next.cluster.as_ref().map(|cluster| cluster.id.as_str()).unwrap_or_default();
    let aside =
        aside.map(|aside| format!("\nthe former store is in {}", aside.display())).unwrap_or_default();
    Ok(format!(
        "recovered {what}\nit goes on as cluster {id}, with this machine as its only member{aside}\nnext: \
         systemctl start coreinitd; where a store of the former cluster is left ({others}), move it away (mv \
         {dir} {dir}.old) and start coreinitd: it joins as a new member",
        dir = dir.display()
    ))
}

fn told<'a>(members: impl Iterator<Item = &'a KeptMember>) -> String {
    let names: Vec<String> = members.map(|kept| kept.member.address.clone()).collect();
    if names.is_empty() { "no other machine".into() } else { names.join(", ") }
}
