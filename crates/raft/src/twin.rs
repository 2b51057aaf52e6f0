//! Two machines with one machine id, as copies of one disk image have: the cluster cannot tell them apart, so
//! the second is kept out, and both say why.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::message::Hello;
use crate::peers::Peers;
use crate::types::Member;

/// What to do about it.
pub const WAY_OUT: &str = "give this machine an id of its own (remove /etc/machine-id, run \
                           systemd-machine-id-setup), empty its state directory, and start coreinitd again";

/// A machine in reach answers well within this.
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// A member that cannot be reached, but was heard so recently, may only be restarting.
const SILENCE_MIN: Duration = Duration::from_secs(5);

/// Whether `former` still lives, and another machine must not take its place. A machine that lost its store
/// listens where it listened before, in another life, which shows at once that the former one is over;
/// `silence` is for how long the leader has not heard the former one.
pub async fn lives(peers: &Arc<Peers>, former: &Member, silence: Duration) -> bool {
    match peers.hello(&former.address, None, HELLO_TIMEOUT).await {
        Ok(hello) => is_life(&hello, &former.machine, &former.nonce),
        Err(_) => silence < SILENCE_MIN,
    }
}

/// Whether the store that is copied here is in use where it was before.
pub async fn is_copied_from(peers: &Arc<Peers>, former_address: &str, me: &Hello) -> bool {
    let hello = peers.hello(former_address, Some(me), HELLO_TIMEOUT).await;
    hello.is_ok_and(|hello| is_life(&hello, &me.machine, &me.nonce) && hello.address != me.address)
}

fn is_life(hello: &Hello, machine: &str, nonce: &str) -> bool {
    hello.machine == machine && hello.nonce == nonce
}

/// Machines that were told of in this daemon's log: each once, however often it asks.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeSet<String>>);

/// More addresses than that are not remembered, and not told of.
const TOLD_MAX: usize = 100;

impl Told {
    /// Whether this is news.
    pub fn first(&self, address: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert(address.to_string())
    }
}
