//! A map of the state that knows how many bytes its records count: what grows without an end must have one,
//! and to add them up anew at each command would take too long.

use std::ops::Deref;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::read_map::read_map;

/// What a record counts towards the bound of its map.
pub trait Weigh<K> {
    fn bytes(&self, key: &K) -> usize;
}

/// Written as the map alone. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed<K: Ord + Clone, V> {
    map: OrdMap<K, Arc<V>>,
    bytes: usize,
}

impl<K: Ord + Clone, V: Weigh<K>> Weighed<K, V> {
    /// All records together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they would come to with that record.
    pub fn bytes_with(&self, key: &K, value: &V) -> usize {
        self.bytes - self.map.get(key).map_or(0, |old| old.bytes(key)) + value.bytes(key)
    }

    pub fn insert(&mut self, key: K, value: Arc<V>) -> Option<Arc<V>> {
        self.bytes = self.bytes_with(&key, &value);
        self.map.insert(key, value)
    }

    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let old = self.map.remove(key)?;
        self.bytes -= old.bytes(key);
        Some(old)
    }
}

impl<K: Ord + Clone, V> Default for Weighed<K, V> {
    fn default() -> Weighed<K, V> {
        Weighed { map: OrdMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone, V> Deref for Weighed<K, V> {
    type Target = OrdMap<K, Arc<V>>;

    fn deref(&self) -> &OrdMap<K, Arc<V>> {
        &self.map
    }
}

impl<'a, K: Ord + Clone, V> IntoIterator for &'a Weighed<K, V> {
    type Item = (&'a K, &'a Arc<V>);
    type IntoIter = <&'a OrdMap<K, Arc<V>> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.map.iter()
    }
}

impl<K: Ord + Clone + Serialize, V: Serialize> Serialize for Weighed<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<'de, K, V> Deserialize<'de> for Weighed<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Weigh<K>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Weighed<K, V>, D::Error> {
        let map: OrdMap<K, Arc<V>> = read_map(deserializer)?;
        let bytes = map.iter().map(|(key, value)| value.bytes(key)).sum();
        Ok(Weighed { map, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh<u8> for String {
        fn bytes(&self, key: &u8) -> usize {
            usize::from(*key) + self.len()
        }
    }

    #[test]
    fn it_counts_what_it_holds() {
        let mut map = Weighed::<u8, String>::default();
        let mut check = |change: &dyn Fn(&mut Weighed<u8, String>), expected: usize| {
            change(&mut map);
            assert_eq!(map.bytes(), expected);
            assert_eq!(map.bytes(), map.iter().map(|(key, value)| value.bytes(key)).sum::<usize>());
        };
        check(&|map| drop(map.insert(1, Arc::new("abc".into()))), 4);
        check(&|map| drop(map.insert(2, Arc::new("d".into()))), 7);
        check(&|map| drop(map.insert(1, Arc::new("a".into()))), 5);
        check(&|map| drop(map.remove(&3)), 5);
        check(&|map| drop(map.remove(&1)), 3);
        assert_eq!(map.bytes_with(&2, &"dd".into()), 4);
        assert_eq!(map.bytes_with(&3, &"dd".into()), 8);
    }
}
