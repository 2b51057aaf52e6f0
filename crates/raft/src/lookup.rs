//! Places of `join` that stand for addresses which change: something outside says which, each time anew.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

/// Says where peers listen.
#[async_trait]
pub trait Lookup: Debug + Send + Sync + 'static {
    /// All addresses, `HOST:PORT`, that a place of `join` stands for now.
    async fn addresses(&self, place: &str) -> io::Result<Vec<String>>;
}

/// Every place is an address.
#[derive(Debug)]
pub struct AsWritten;

#[async_trait]
impl Lookup for AsWritten {
    async fn addresses(&self, place: &str) -> io::Result<Vec<String>> {
        Ok(vec![place.into()])
    }
}

/// What a place stands for, or why that is not known.
pub(crate) type Place = Result<String, (String, String)>;

/// Of all places, each address once, in their order. A place that stands for nothing is not known.
pub(crate) async fn all(lookup: &dyn Lookup, places: &[String]) -> Vec<Place> {
    let looked_up = places.iter().map(|place| async move {
        match lookup.addresses(place).await {
            Ok(addresses) if addresses.is_empty() => vec![Err((place.clone(), "it names no address".into()))],
            Ok(addresses) => addresses.into_iter().map(Ok).collect(),
            Err(error) => vec![Err((place.clone(), error.to_string()))],
        }
    });
    let mut found = Vec::new();
    for place in futures::future::join_all(looked_up).await.into_iter().flatten() {
        if !found.contains(&place) {
            found.push(place);
        }
    }
    found
}
