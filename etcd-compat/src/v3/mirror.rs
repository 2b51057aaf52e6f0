//! This machine's copy of what etcd holds: read whole once, then kept by a watch that begins where the
//! reading ended. Everybody else reads here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterState, MachineId, Revision};
use etcd_client::{
    Error, EventType, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse,
};
use imbl::OrdMap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::keys::{FORMAT_VERSION, Format, Keys, LeadValue, Place};
use super::link::{Connection, Link};
use super::trouble::{chain, is_compacted, is_future, is_too_long};
use crate::record::{self, Key};
use crate::shared::{AliveValue, Shared};

/// For one page of the first reading, and for a watch to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys in one answer; fewer when they are too large together.
const PAGE_KEYS: i64 = 512;
/// After an etcd that holds what cannot be used. A human has to act.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// The copy at one moment. Cheap to clone and to hold.
#[derive(Clone, Debug)]
pub struct View {
    /// etcd's, of the newest change of any of our keys. Nothing older is missing.
    pub revision: i64,
    /// Added to it for the cluster's own revisions.
    pub base: u64,
    pub state: Arc<ClusterState>,
    /// When each record's key was last written.
    pub written: OrdMap<Key, i64>,
    pub lead: Option<Lead>,
}

/// Who leads, by the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    pub machine: MachineId,
    /// When the key was made: grows with every leader.
    pub created: i64,
    pub lease: i64,
}

/// Why the copy cannot be kept up.
#[derive(Debug)]
enum Lost {
    /// History that is needed is gone: everything is read again.
    Compacted,
    /// etcd holds what cannot be used.
    Doubt(String),
    Failed(String),
}

impl Lost {
    fn words(self) -> String {
        match self {
            Lost::Compacted => "it was compacted meanwhile".into(),
            Lost::Doubt(reason) | Lost::Failed(reason) => reason,
        }
    }
}

pub struct Mirror {
    shared: Arc<Shared>,
    link: Arc<Link>,
    keys: Keys,
    /// `None` until the first reading.
    view: watch::Sender<Option<Arc<View>>>,
    /// The number of the connection on which a watch has begun.
    watching: watch::Sender<u64>,
}

const NOT_WATCHING: u64 = 0;

/// The copy while it is being changed.
struct Draft {
    view: View,
    state: ClusterState,
    cluster_id: u64,
    /// The last write's word, and when it was written.
    head: Option<(i64, Vec<u8>)>,
    moved: bool,
}

impl Mirror {
    pub fn new(shared: Arc<Shared>, link: Arc<Link>, keys: Keys) -> Mirror {
        let (view, watching) = (watch::Sender::new(None), watch::Sender::new(NOT_WATCHING));
        Mirror { shared, link, keys, view, watching }
    }

    pub fn views(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// The copy now; `None` before the first reading, and while what etcd holds is not used.
    pub fn view(&self) -> Option<Arc<View>> {
        let refused = self.shared.refusal.borrow().is_some();
        self.view.borrow().clone().filter(|_| !refused)
    }

    /// Whether what changes in etcd is to come on that connection.
    pub fn watches_on(&self, number: u64) -> bool {
        *self.watching.borrow() == number
    }

    /// Waits for a connection to an etcd whose history the copy is known to be of; `None` when there is none
    /// by the deadline.
    pub async fn followed(&self, deadline: Instant) -> Option<Arc<Connection>> {
        let mut watching = self.watching.subscribe();
        let followed = async {
            loop {
                let number = *watching.borrow_and_update();
                if let Some(current) = self.link.current().filter(|current| current.number == number) {
                    return Some(current);
                }
                watching.changed().await.ok()?;
            }
        };
        timeout_at(deadline, followed).await.ok()?
    }

    /// Everything there is now, and whose keys say that they are there.
    pub async fn read_once(&self, connection: &Connection) -> Result<(ClusterState, Vec<MachineId>), String> {
        let mut draft = self.load(connection).await.map_err(Lost::words)?;
        draft.state.revision = Revision(draft.view.base + draft.view.revision as u64);
        Ok((draft.state, self.shared.presence.present()))
    }

    /// Keeps the copy for as long as it is polled.
    pub async fn run(&self) {
        let mut draft: Option<Draft> = None;
        let mut failures = 0;
        loop {
            let connection = self.link.ready().await;
            let before = draft.as_ref().map(|draft| draft.view.revision);
            let ended = tokio::select! {
                // Not resumed when cancelled: the copy is whole after every change, and the next connection
                // goes on after the last.
                ended = self.follow(&connection, &mut draft) => ended,
                () = self.link.replaced(connection.number) => Ok(()),
            };
            self.watching.send_replace(NOT_WATCHING);
            self.shared.presence.deaf();
            failures =
                if draft.as_ref().map(|draft| draft.view.revision) == before { failures + 1 } else { 0 };
            match ended {
                Ok(()) => {}
                Err(Lost::Compacted) => {
                    tracing::info!("etcd has compacted what this machine had not seen; reading everything");
                    draft = None;
                }
                Err(Lost::Doubt(reason)) => {
                    self.shared.set_refusal(Some(reason));
                    draft = None;
                    tokio::time::sleep(DOUBT_PAUSE).await;
                }
                Err(Lost::Failed(reason)) => {
                    // An answer that can never be taken must not be asked for again and again.
                    if failures >= 3 {
                        draft = None;
                    }
                    self.link.failed(connection.number, &reason);
                }
            }
        }
    }

    async fn follow(&self, connection: &Connection, slot: &mut Option<Draft>) -> Result<(), Lost> {
        let kept = slot.as_ref().filter(|draft| draft.cluster_id == connection.cluster_id);
        let goes_on = match kept {
            Some(draft) => self.goes_on(connection, draft).await?,
            None => false,
        };
        if let (Some(draft), false) = (kept, goes_on) {
            tracing::warn!(
                endpoint = connection.endpoint,
                revision = draft.view.revision,
                "etcd holds another history than this machine has seen, as after a restore; reading it all"
            );
        }
        let draft = match slot.take().filter(|_| goes_on) {
            Some(draft) => slot.insert(draft),
            None => {
                let draft = slot.insert(self.load(connection).await?);
                self.publish(draft)?;
                draft
            }
        };
        let options = WatchOptions::new().with_prefix().with_start_revision(draft.view.revision + 1);
        let begun = timeout(ANSWER_TIMEOUT, connection.watches().watch(self.keys.all(), Some(options))).await;
        let mut watch = begun.map_err(|_| Lost::Failed("a watch does not begin".into()))?.map_err(failed)?;
        self.watching.send_replace(connection.number);
        loop {
            let Some(response) = watch.message().await.map_err(failed)? else {
                return Err(Lost::Failed("a watch has ended".into()));
            };
            self.take(draft, &response)?;
            self.publish(draft)?;
        }
    }

    /// Whether the copy is a part of the history that etcd holds now. One that was restored from its own
    /// snapshot has the same id and counts on from an earlier revision; it may have passed the copy's by now.
    async fn goes_on(&self, connection: &Connection, draft: &Draft) -> Result<bool, Lost> {
        let then = || Some(GetOptions::new().with_revision(draft.view.revision));
        let gets = [TxnOp::get(self.keys.head(), then()), TxnOp::get(self.keys.lead(), then())];
        let answer = timeout(ANSWER_TIMEOUT, connection.kv().txn(Txn::new().and_then(gets))).await;
        let answer = match answer.map_err(|_| Lost::Failed("no answer in time to a read".into()))? {
            Ok(answer) => answer,
            Err(error) if is_future(&error) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let found = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        let found: Vec<_> = found.collect();
        let [head, lead_then] = &found[..] else { return Ok(false) };
        let lead_then = lead_then.as_ref().map(lead).transpose()?.flatten();
        Ok(head.as_ref().map(word) == draft.head && lead_then == draft.view.lead)
    }

    /// Reads everything at one revision.
    async fn load(&self, connection: &Connection) -> Result<Draft, Lost> {
        let (mut kvs, mut revision, mut limit): (Vec<KeyValue>, i64, i64) = (Vec::new(), 0, PAGE_KEYS);
        loop {
            let mut from = kvs.last().map_or(self.keys.all().into_bytes(), |last| last.key().to_vec());
            if !kvs.is_empty() {
                from.push(0);
            }
            let mut end = self.keys.all().into_bytes();
            // The prefix ends in a slash, whose successor is a zero.
            end.pop();
            end.push(b'/' + 1);
            let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(revision);
            let page = timeout(ANSWER_TIMEOUT, connection.kv().get(from, Some(options))).await;
            let page =
                page.map_err(|_| Lost::Failed("no answer in time to a reading of everything".into()))?;
            let mut page = match page {
                Ok(page) => page,
                Err(error) if is_too_long(&error) && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if revision == 0 {
                revision = page.header().map_or(0, |header| header.revision());
            }
            let more = page.more();
            kvs.extend(page.take_kvs());
            if !more {
                break;
            }
        }
        let mut view = View { revision, base: 0, state: Arc::default(), written: OrdMap::new(), lead: None };
        view.base = self.format(kvs.iter().find(|kv| matches!(self.keys.place(kv.key()), Place::Format)))?;
        let state =
            ClusterState { revision: Revision(view.base + revision as u64), ..ClusterState::default() };
        let cluster_id = connection.cluster_id;
        let mut draft = Draft { view, state, cluster_id, head: None, moved: true };
        let mut present = BTreeMap::new();
        for kv in &kvs {
            match self.keys.place(kv.key()) {
                Place::Alive(machine) => drop(present.insert(machine, AliveValue::read(kv.value()).peer)),
                Place::Lead => draft.view.lead = lead(kv)?,
                Place::Record(key) => draft.put(&key, Some(kv.value()), kv.mod_revision())?,
                Place::Head => draft.head = Some(word(kv)),
                Place::Format | Place::Strange => {}
            }
        }
        self.shared.presence.only(present);
        Ok(draft)
    }

    fn format(&self, kv: Option<&KeyValue>) -> Result<u64, Lost> {
        let Some(kv) = kv else { return Ok(0) };
        let format: Format = serde_json::from_slice(kv.value()).map_err(|error| {
            Lost::Doubt(format!("the key {} cannot be read: {error}", self.keys.format()))
        })?;
        if format.version > FORMAT_VERSION {
            let version = format.version;
            return Err(Lost::Doubt(format!(
                "it is kept in format {version}, and this program knows up to {FORMAT_VERSION}"
            )));
        }
        Ok(format.base)
    }

    /// Takes over what a watch tells.
    fn take(&self, draft: &mut Draft, response: &WatchResponse) -> Result<(), Lost> {
        if response.canceled() {
            return Err(match response.compact_revision() {
                0 => Lost::Failed(format!("a watch was ended: {}", response.cancel_reason())),
                _ => Lost::Compacted,
            });
        }
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let is_put = event.event_type() == EventType::Put;
            draft.view.revision = draft.view.revision.max(kv.mod_revision());
            match self.keys.place(kv.key()) {
                // Generations are counted from it: everything is read again.
                Place::Format if self.format(Some(kv).filter(|_| is_put))? != draft.view.base => {
                    return Err(Lost::Compacted);
                }
                Place::Format | Place::Strange => {}
                Place::Head => {
                    draft.head = Some(word(kv)).filter(|_| is_put);
                    draft.moved = true;
                }
                Place::Lead => draft.view.lead = if is_put { lead(kv)? } else { None },
                Place::Alive(machine) if is_put => {
                    self.shared.presence.came(machine, AliveValue::read(kv.value()).peer)
                }
                Place::Alive(machine) => self.shared.presence.left(machine),
                Place::Record(key) => {
                    draft.put(&key, Some(kv.value()).filter(|_| is_put), kv.mod_revision())?
                }
            }
        }
        Ok(())
    }

    /// Shows the copy to everybody, unless it is not this machine's cluster.
    fn publish(&self, draft: &mut Draft) -> Result<(), Lost> {
        if std::mem::take(&mut draft.moved) {
            let cluster = draft.state.cluster.as_deref();
            self.shared.belonging.check(cluster).map_err(Lost::Doubt)?;
            self.shared.set_refusal(None);
            draft.state.revision = Revision(draft.view.base + draft.view.revision as u64);
            #[cfg(debug_assertions)]
            if let Err(broken) = draft.state.check() {
                panic!("at revision {}: {broken}", draft.state.revision);
            }
            draft.view.state = Arc::new(draft.state.clone());
            self.shared.state.send_replace(draft.view.state.clone());
        }
        self.view.send_replace(Some(Arc::new(draft.view.clone())));
        Ok(())
    }
}

impl Draft {
    fn put(&mut self, key: &Key, value: Option<&[u8]>, written: i64) -> Result<(), Lost> {
        let at = Revision(self.view.base + written as u64);
        let change = record::decode(key, value, at).map_err(|error| Lost::Doubt(words(&error)))?;
        self.state.put(change);
        self.moved = true;
        match value {
            Some(_) => self.view.written.insert(key.clone(), written),
            None => self.view.written.remove(key),
        };
        Ok(())
    }
}

fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", words(source)),
        None => error.to_string(),
    }
}

fn lead(kv: &KeyValue) -> Result<Option<Lead>, Lost> {
    let value: LeadValue = serde_json::from_slice(kv.value())
        .map_err(|error| Lost::Doubt(format!("the leader's key cannot be read: {error}")))?;
    Ok(Some(Lead { machine: value.machine, created: kv.create_revision(), lease: kv.lease() }))
}

fn word(kv: &KeyValue) -> (i64, Vec<u8>) {
    (kv.mod_revision(), kv.value().to_vec())
}

fn failed(error: Error) -> Lost {
    match is_compacted(&error) {
        true => Lost::Compacted,
        false => Lost::Failed(chain(&error)),
    }
}
