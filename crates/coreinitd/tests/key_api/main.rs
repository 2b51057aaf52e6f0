//! etcd's key API out of our own state: beside a real etcd, and as its real clients see it. Debian's
//! `etcd-server`, `etcd-client`, `curl` and `python3-etcd` are needed.

mod bounds;
mod clients;
mod differential;
mod random;
mod real_etcd;
mod served;
mod watching;
