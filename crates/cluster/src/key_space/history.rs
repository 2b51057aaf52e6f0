//! The last events of the key space, for those who come back and ask what they have missed. Every index has
//! one event, so the history is without gaps.

use std::sync::Arc;

use imbl::OrdMap;

use super::event::KeyEvent;

/// As many as etcd keeps.
pub const KEY_EVENTS_MAX: usize = 1000;
/// Of all events together: with large values fewer are kept, since each snapshot has them.
pub const KEY_EVENTS_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    events: OrdMap<u64, Arc<KeyEvent>>,
    bytes: usize,
}

impl History {
    pub fn push(&mut self, event: Arc<KeyEvent>) {
        self.bytes += event.bytes();
        self.events.insert(event.index(), event);
        while KEY_EVENTS_MAX < self.events.len() || KEY_EVENTS_BYTES_MAX < self.bytes {
            let Some(oldest) = self.first() else { return };
            if let Some(gone) = self.events.remove(&oldest) {
                self.bytes -= gone.bytes();
            }
        }
    }

    pub fn first(&self) -> Option<u64> {
        self.events.get_min().map(|(index, _)| *index)
    }

    pub fn last(&self) -> Option<u64> {
        self.events.get_max().map(|(index, _)| *index)
    }

    pub fn events(&self) -> impl Iterator<Item = &Arc<KeyEvent>> {
        self.events.values()
    }

    pub fn since(&self, index: u64) -> impl Iterator<Item = &Arc<KeyEvent>> {
        self.events.range(index..).map(|(_, event)| event)
    }
}
