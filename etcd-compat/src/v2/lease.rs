//! Two keys that expire: that this machine is there, and that it leads. This interface has no leases, so each
//! renewal is a write of etcd's, one a second for each machine and one more for the leader.

use std::time::Duration;

use cluster::Command;
use store::Role;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::V2;
use super::keys::{KeyError, Member};
use super::mirror::{Format, LeadValue, View};
use crate::shared::{LEASE_MARGIN, LEASE_TTL, RENEW_INTERVAL};

const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

impl V2 {
    /// The term in which this machine leads, while it is safe to act on it.
    pub(super) fn term(&self) -> Option<u64> {
        let view = self.mirror.view()?;
        let lead = view.lead.as_ref().filter(|lead| lead.value.life == self.life)?;
        let until = (*self.leads_until.borrow())?;
        let safe = Instant::now() + LEASE_MARGIN < until && !*self.resigned.borrow();
        safe.then_some(view.base + lead.created)
    }

    fn is_there(&self) -> bool {
        self.there_until.borrow().is_some_and(|until| Instant::now() + LEASE_MARGIN < until)
    }

    /// Renews both keys, and stands for the lead, for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut tick = interval(RENEW_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut views = self.mirror.views();
        loop {
            let is_due = tokio::select! {
                // Cancel-safe: both only wait.
                _ = tick.tick() => true,
                changed = views.changed() => if changed.is_err() { return } else { false },
            };
            views.mark_unchanged();
            let Some(view) = self.mirror.view() else { continue };
            let member = self.link.current();
            let leaderless = view.lead.is_none() && !*self.resigned.borrow();
            let done = match is_due || leaderless {
                true => self.renew(&member, &view, is_due).await,
                false => Ok(()),
            };
            if let Err(error) = done {
                self.link.failed(member.number, &error);
            }
        }
    }

    async fn renew(&self, member: &Member, view: &View, is_due: bool) -> Result<(), KeyError> {
        let ttl = format!("ttl={}", LEASE_TTL.as_secs());
        let machine = &self.shared.options.machine;
        if is_due {
            let sent = Instant::now();
            let value = self.shared.alive_value();
            member.put(&format!("{}/alive/{machine}", self.dir), &ttl, &value, ANSWER_TIMEOUT).await?;
            self.there_until.send_replace(Some(sent + LEASE_TTL));
            self.shared.set_trouble(None);
            self.shared.set_denied(None);
        }
        if *self.resigned.borrow() || !self.is_there() {
            return Ok(());
        }
        let value = LeadValue { machine: machine.clone(), life: self.life.clone() };
        let value = serde_json::to_string(&value).expect("texts");
        let query = match &view.lead {
            None => "prevExist=false".to_string(),
            Some(lead) if lead.value.life == self.life && is_due => format!("prevIndex={}", lead.modified),
            Some(_) => return Ok(()),
        };
        let sent = Instant::now();
        let key = format!("{}/lead", self.dir);
        match member.put(&key, &format!("{query}&{ttl}"), &value, ANSWER_TIMEOUT).await {
            Ok(_) => drop(self.leads_until.send_replace(Some(sent + LEASE_TTL))),
            // The copy tells who it is now.
            Err(KeyError::Changed | KeyError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        if view.state.cluster.is_none() {
            self.form(member, view).await?;
        }
        Ok(())
    }

    /// Writes the first entry of a new cluster; a second one is refused by the rule.
    async fn form(&self, member: &Member, view: &View) -> Result<(), KeyError> {
        let format = Format { version: super::mirror::FORMAT_VERSION, base: view.base };
        let format = serde_json::to_string(&format).expect("numbers");
        let key = format!("{}/format", self.dir);
        match member.put(&key, "prevExist=false", &format, ANSWER_TIMEOUT).await {
            Ok(_) | Err(KeyError::Changed) => {}
            Err(error) => return Err(error),
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let init = Command::InitCluster { id, name: self.shared.options.cluster_name.clone() };
        self.append(member, "forming", vec![init], ANSWER_TIMEOUT).await.map(drop)
    }

    /// Keeps the role true, also while every request hangs.
    pub(super) async fn keep_role(&self) {
        let (mut views, mut there) = (self.mirror.views(), self.there_until.subscribe());
        let (mut leads, mut resigned) = (self.leads_until.subscribe(), self.resigned.subscribe());
        let (mut refusal, mut trouble) = (self.shared.refusal.subscribe(), self.shared.trouble.subscribe());
        let mut denied = self.shared.denied.subscribe();
        loop {
            self.shared.set_role(self.role());
            let ends = [*there.borrow_and_update(), *leads.borrow_and_update()];
            let ends = ends.into_iter().flatten().map(|until| until - LEASE_MARGIN);
            let next = ends.filter(|until| Instant::now() < *until).min();
            tokio::select! {
                // Cancel-safe: all of these only wait.
                _ = views.changed() => {}
                _ = there.changed() => {}
                _ = leads.changed() => {}
                _ = resigned.changed() => {}
                _ = refusal.changed() => {}
                _ = trouble.changed() => {}
                _ = denied.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            views.mark_unchanged();
        }
    }

    fn role(&self) -> Role {
        if let Some(hint) = self.shared.refusal.borrow().clone() {
            return Role::Unformed { hint };
        }
        let formed = self.shared.state.borrow().cluster.is_some();
        let Some(view) = self.mirror.view().filter(|_| formed) else {
            let hint = self.shared.known_trouble();
            return Role::Unformed { hint: hint.unwrap_or_else(|| self.shared.forming()) };
        };
        match (&view.lead, self.term()) {
            _ if !self.is_there() => Role::Leaderless,
            (_, Some(term)) => Role::Leader { term },
            // Its own key from an earlier life, or one that it does not trust any more.
            (Some(lead), None) if lead.value.life == self.life => Role::Leaderless,
            (Some(lead), None) => Role::Follower { leader: lead.value.machine.clone() },
            (None, None) => Role::Leaderless,
        }
    }

    /// Gives the lead away, if this machine has it, and takes it no more.
    pub async fn give_up_lead(&self, limit: Duration) {
        let leads = self.term().is_some();
        self.resigned.send_replace(true);
        let lead = self.mirror.view().and_then(|view| view.lead.clone());
        let (Some(lead), true) = (lead, leads) else { return };
        let (member, key) = (self.link.current(), format!("{}/lead", self.dir));
        let query = format!("prevIndex={}", lead.modified);
        if let Err(error) = member.delete(&key, &query, limit).await {
            tracing::warn!(%error, "the lead was not given up; it ends with its key");
        }
    }
}
