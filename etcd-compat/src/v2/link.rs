//! The member of etcd that is asked now, and the next one when it fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::keys::{Done, KeyError, Member};
use crate::http::Http;
use crate::shared::Shared;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Link {
    shared: Arc<Shared>,
    current: Mutex<(usize, Arc<Member>)>,
}

fn member(shared: &Shared, number: u64) -> Result<Arc<Member>, String> {
    let options = &shared.options;
    let endpoint = &options.endpoints[number as usize % options.endpoints.len()];
    let http = Http::new(endpoint, options.tls.as_ref(), options.user.as_ref())?;
    Ok(Arc::new(Member { number, http }))
}

impl Link {
    pub fn new(shared: Arc<Shared>, first: usize) -> Result<Link, String> {
        let current = Mutex::new((first, member(&shared, first as u64)?));
        Ok(Link { shared, current })
    }

    pub fn current(&self) -> Arc<Member> {
        self.current.lock().expect("no holder of this lock panics").1.clone()
    }

    /// That member did not do what it should: the next one is asked from here on, unless it would say the
    /// same.
    pub fn failed(&self, number: u64, error: &KeyError) {
        if let KeyError::Refused(why) = error {
            self.shared.set_trouble(None);
            self.shared.set_denied(Some(why.clone()));
            return;
        }
        let mut current = self.current.lock().expect("no holder of this lock panics");
        if current.1.number == number
            && let Ok(next) = member(&self.shared, number + 1)
        {
            self.shared.set_trouble(Some(error.to_string()));
            *current = (current.0 + 1, next);
        }
    }

    /// A connection of its own to the same member: a watch holds it for as long as nothing happens.
    pub fn aside(&self) -> Result<Arc<Member>, String> {
        member(&self.shared, self.current().number)
    }

    /// Whether a majority of etcd stands behind the member that is asked; etcd's index, if so.
    pub async fn proves(&self, key: &str) -> Result<u64, KeyError> {
        let member = self.current();
        match member.get(key, "quorum=true", ANSWER_TIMEOUT).await {
            Ok(Done { index, .. }) | Err(KeyError::NotFound(index)) => {
                self.shared.set_trouble(None);
                Ok(index)
            }
            Err(error) => {
                self.failed(member.number, &error);
                Err(error)
            }
        }
    }
}
