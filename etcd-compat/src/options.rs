//! What the store has to be told.

use std::path::PathBuf;

use cluster::MachineId;

/// Where the state is kept when nobody said.
pub const PREFIX: &str = "/coreinit/";

/// Which of etcd's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// JSON over HTTP, with keys in folders: all that an etcd before 3.0 has.
    V2,
    V3,
}

/// What a store on etcd has to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub machine: MachineId,
    /// `http://HOST:PORT` or `https://HOST:PORT`, one etcd cluster's members. The first that answers is
    /// used until it does not.
    pub endpoints: Vec<String>,
    /// `None`: found out, and v3 where there is one.
    pub api: Option<Api>,
    /// Begins and ends with `/`.
    pub prefix: String,
    pub user: Option<User>,
    pub tls: Option<Tls>,
    /// What a cluster that is formed here is called.
    pub cluster_name: String,
    /// Where the daemons of other machines reach this one's, if they do: `HOST:PORT`.
    pub peer: Option<String>,
    /// For one small file: which cluster this machine belongs to.
    pub dir: PathBuf,
}

#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// For `https` endpoints. All in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who vouches for etcd.
    pub ca: Vec<u8>,
    /// This machine's certificate and key, when etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls")
    }
}
