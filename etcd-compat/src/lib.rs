//! The store on an etcd that stands already, as on CoreOS (`:4001`): the crate's place in the workspace. A
//! later version implements [`store::Store`] here, on etcd's v3 interface and on its v2 one; nothing else of
//! the daemon will change.

pub use store::Store;
