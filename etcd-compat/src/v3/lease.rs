//! This machine's lease: while it is renewed, the machine is there, and may lead. Renewing costs etcd no
//! write, so a slow disk under etcd makes nobody look dead.

use std::sync::Arc;
use std::time::Duration;

use cluster::Command;
use etcd_client::{Client, Compare, CompareOp, Error, PutOptions, Txn, TxnOp};
use store::Role;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::V3;
use super::keys::{Format, LeadValue, head_word};
use super::mirror::{Lead, View};
use super::trouble::Trouble;
use crate::shared::{LEASE_MARGIN, LEASE_TTL, RENEW_INTERVAL};

/// An answer that takes longer leaves no time to ask another member before the lease ends.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// A lease that etcd has granted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Held {
    pub id: i64,
    /// Until when etcd keeps it at least: counted from before it was asked.
    pub until: Instant,
    /// The key that says that this machine is there is written under it.
    pub is_shown: bool,
}

/// What came of a request that was given its time.
fn within<T>(what: &str, answer: Result<Result<T, Error>, Elapsed>) -> Result<T, Trouble> {
    match answer {
        Ok(answer) => answer.map_err(|error| Trouble::of(&error)),
        Err(_) => Err(Trouble::Unknown(format!("no answer in time to {what}"))),
    }
}

impl V3 {
    /// The lease, while it is safe to act on it.
    fn held(&self) -> Option<Held> {
        self.held.borrow().filter(|held| held.is_shown && Instant::now() + LEASE_MARGIN < held.until)
    }

    /// The term in which this machine leads.
    pub(super) fn term(&self) -> Option<i64> {
        let lead = self.mirror.view()?.lead.clone()?;
        self.held().filter(|held| lead.lease == held.id && !*self.resigned.borrow()).map(|_| lead.created)
    }

    /// Renews the lease and stands for the lead, for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut tick = interval(RENEW_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut views = self.mirror.views();
        let mut renewed: Option<Instant> = None;
        let mut first = true;
        loop {
            tokio::select! {
                // Cancel-safe: all of these only wait.
                _ = tick.tick() => {}
                changed = views.changed() => if changed.is_err() { return },
            }
            views.mark_unchanged();
            let Some(connection) = self.link.current() else { continue };
            let mut client = connection.client();
            if renewed.is_none_or(|at| RENEW_INTERVAL <= at.elapsed() + RENEW_INTERVAL / 4) {
                renewed = Some(Instant::now());
                if let Err(trouble) = self.renew(&mut client).await {
                    self.link.fails(connection.number, &trouble);
                    continue;
                }
            }
            let (Some(view), Some(held)) = (self.mirror.view(), self.held()) else { continue };
            let stood = match &view.lead {
                None if !*self.resigned.borrow() => self.campaign(&mut client, &view, held).await,
                // Its lease went down with the last process of this machine.
                Some(lead) if first && self.is_mine(lead) && lead.lease != held.id => {
                    self.take_down(&mut client, lead).await
                }
                _ => Ok(()),
            };
            first = false;
            if let Err(trouble) = stood {
                self.link.fails(connection.number, &trouble);
            }
        }
    }

    fn is_mine(&self, lead: &Lead) -> bool {
        lead.machine == self.shared.options.machine
    }

    /// The lease holds when it returns, and the machine is seen to be there.
    async fn renew(&self, client: &mut Client) -> Result<(), Trouble> {
        let sent = Instant::now();
        let known = *self.held.borrow();
        let id = match known {
            // A stream for each renewal: the first answer is awaited, and a lost one is never mistaken for
            // it.
            Some(held) => match timeout(ANSWER_TIMEOUT, client.lease_keep_alive(held.id)).await {
                Ok(Err(Error::LeaseKeepAliveError(_))) => {
                    tracing::info!("this machine's lease has run out");
                    self.grant(client).await?
                }
                answer => within("the renewal of a lease", answer).map(|_| held.id)?,
            },
            None => self.grant(client).await?,
        };
        let is_shown = known.is_some_and(|held| held.id == id && held.is_shown);
        self.held.send_replace(Some(Held { id, until: sent + LEASE_TTL, is_shown }));
        // While etcd takes no changes, this one tells when it does again.
        if !is_shown || self.shared.is_denied() {
            self.show(client, id).await?;
            self.held.send_replace(Some(Held { id, until: sent + LEASE_TTL, is_shown: true }));
            self.shared.set_denied(None);
        }
        Ok(())
    }

    async fn grant(&self, client: &mut Client) -> Result<i64, Trouble> {
        let granted = timeout(ANSWER_TIMEOUT, client.lease_grant(LEASE_TTL.as_secs() as i64, None)).await;
        within("the wish for a lease", granted).map(|granted| granted.id())
    }

    /// Writes the key that says that this machine is there.
    async fn show(&self, client: &mut Client, lease: i64) -> Result<(), Trouble> {
        let key = self.keys.alive(&self.shared.options.machine);
        let options = PutOptions::new().with_lease(lease);
        let shown = timeout(ANSWER_TIMEOUT, client.put(key, self.shared.alive_value(), Some(options))).await;
        within("a machine's presence", shown).map(drop)
    }

    /// Takes the lead if nobody has it. A cluster that is not formed yet is formed on the way.
    async fn campaign(&self, client: &mut Client, view: &View, held: Held) -> Result<(), Trouble> {
        let (keys, machine) = (&self.keys, self.shared.options.machine.clone());
        let value = serde_json::to_vec(&LeadValue { machine }).expect("a machine's id is a string");
        let options = PutOptions::new().with_lease(held.id);
        let mut operations = vec![TxnOp::put(keys.lead(), value, Some(options))];
        let nobody = Compare::create_revision(keys.lead(), CompareOp::Equal, 0);
        let mut compares = vec![nobody];
        if view.state.cluster.is_none() {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let init = Command::InitCluster { id, name: self.shared.options.cluster_name.clone() };
            let made = view.state.apply(view.state.revision, &init).ok().and_then(|made| made.change);
            if let Some((key, Some(value))) = made.as_ref().map(crate::record::encode) {
                let format = serde_json::to_vec(&Format { base: view.base, ..Format::default() });
                let format = format.expect("numbers under string keys");
                compares.push(Compare::create_revision(keys.record(&key), CompareOp::Equal, 0));
                operations.push(TxnOp::put(keys.record(&key), value, None));
                operations.push(TxnOp::put(keys.format(), format, None));
                operations.push(TxnOp::put(keys.head(), head_word(&self.shared.options.machine), None));
            }
        }
        let txn = Txn::new().when(compares).and_then(operations);
        within("a campaign", timeout(ANSWER_TIMEOUT, client.txn(txn)).await).map(drop)
    }

    async fn take_down(&self, client: &mut Client, lead: &Lead) -> Result<(), Trouble> {
        let same = Compare::create_revision(self.keys.lead(), CompareOp::Equal, lead.created);
        let txn = Txn::new().when([same]).and_then([TxnOp::delete(self.keys.lead(), None)]);
        within("the end of a lead", timeout(ANSWER_TIMEOUT, client.txn(txn)).await).map(drop)
    }

    /// Keeps the role true, also while every request hangs: a leader must know of its end before etcd does.
    pub(super) async fn keep_role(&self) {
        let (mut views, mut held) = (self.mirror.views(), self.held.subscribe());
        let (mut refusal, mut resigned) = (self.shared.refusal.subscribe(), self.resigned.subscribe());
        let (mut trouble, mut denied) = (self.shared.trouble.subscribe(), self.shared.denied.subscribe());
        loop {
            self.shared.set_role(self.role());
            let until = held.borrow_and_update().map(|held| held.until - LEASE_MARGIN);
            let until = until.filter(|until| Instant::now() < *until);
            tokio::select! {
                // Cancel-safe: all of these only wait.
                _ = views.changed() => {}
                _ = held.changed() => {}
                _ = refusal.changed() => {}
                _ = resigned.changed() => {}
                _ = trouble.changed() => {}
                _ = denied.changed() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
            views.mark_unchanged();
        }
    }

    fn role(&self) -> Role {
        if let Some(hint) = self.shared.refusal.borrow().clone() {
            return Role::Unformed { hint };
        }
        let Some(view) = self.mirror.view() else {
            let hint = self.shared.known_trouble();
            return Role::Unformed { hint: hint.unwrap_or_else(|| "it is looking for etcd".into()) };
        };
        if view.state.cluster.is_none() {
            return Role::Unformed { hint: self.shared.forming() };
        }
        match &view.lead {
            _ if self.held().is_none() => Role::Leaderless,
            Some(lead) => match self.term() {
                Some(term) => Role::Leader { term: view.base + term as u64 },
                None => Role::Follower { leader: lead.machine.clone() },
            },
            None => Role::Leaderless,
        }
    }

    /// Gives the lead away, if this machine has it, and takes it no more.
    pub async fn give_up_lead(&self, limit: Duration) {
        let lead = self.mirror.view().and_then(|view| view.lead.clone());
        let leads = self.term().is_some();
        self.resigned.send_replace(true);
        let (Some(lead), true, Some(connection)) = (lead, leads, self.link.current()) else { return };
        if let Ok(Err(reason)) = timeout(limit, self.take_down(&mut connection.client(), &lead)).await {
            tracing::warn!(%reason, "the lead was not given up; it ends with its lease");
        }
    }
}

/// The same, for those who hold the store in an `Arc`.
pub(super) async fn keep(store: Arc<V3>) {
    tokio::select! {
        // Not resumed when cancelled: both end together.
        () = store.keep() => {}
        () = store.keep_role() => {}
    }
}
