//! The part of the configuration that opens etcd's key API.

use anyhow::ensure;
use serde::Deserialize;

use super::address::is_loopback;

/// CoreOS had etcd at one port, and at two later.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Addresses that are served at a time.
const ADDRESSES_MAX: usize = 8;

/// Where the keys are served; empty: nowhere.
pub(super) fn read(
    given: Option<OneOrMany>,
    is_in_etcd: bool,
    insecure_transport: bool,
) -> anyhow::Result<Vec<String>> {
    let addresses = match given {
        None => return Ok(Vec::new()),
        Some(OneOrMany::One(address)) => vec![address],
        Some(OneOrMany::Many(addresses)) => addresses,
    };
    ensure!(
        addresses.is_empty() || !is_in_etcd,
        "etcd_listen serves etcd's key API out of the daemons' own state, and with backend = \"etcd\" they \
         keep none: that etcd serves its keys itself; take etcd_listen out"
    );
    ensure!(addresses.len() <= ADDRESSES_MAX, "etcd_listen names more than {ADDRESSES_MAX} addresses");
    for address in &addresses {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        ensure!(port.is_some(), "etcd_listen: {address:?} has no port; write \"127.0.0.1:4001\"");
        ensure!(
            insecure_transport || is_loopback(address),
            "etcd_listen: {address:?} opens the keys to other machines, and nothing there is encrypted or \
             checked; if the network is yours alone, say so with insecure_transport = true"
        );
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        etcd_listen: Option<OneOrMany>,
    }

    fn check(text: &str, (in_etcd, insecure): (bool, bool), expected: Result<&[&str], &str>) {
        let file: File = toml::from_str(text).unwrap();
        match (read(file.etcd_listen, in_etcd, insecure), expected) {
            (Ok(addresses), Ok(expected)) => assert_eq!(addresses, expected),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn the_keys_are_served_where_that_is_safe() {
        let neither = (false, false);
        check("", (true, false), Ok(&[]));
        check("etcd_listen = '127.0.0.1:4001'", neither, Ok(&["127.0.0.1:4001"]));
        check(
            "etcd_listen = ['[::1]:4001', 'localhost:2379']",
            neither,
            Ok(&["[::1]:4001", "localhost:2379"]),
        );
        check("etcd_listen = '127.0.0.1:4001'", (true, false), Err("backend = \"etcd\""));
        check("etcd_listen = '127.0.0.1'", neither, Err("no port"));
        check("etcd_listen = '0.0.0.0:4001'", neither, Err("insecure_transport"));
        check("etcd_listen = '0.0.0.0:4001'", (false, true), Ok(&["0.0.0.0:4001"]));
    }
}
