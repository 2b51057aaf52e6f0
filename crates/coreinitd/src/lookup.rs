//! `dns:NAME[:PORT]` and `srv:NAME` in `join`: names under which a cluster's machines are found, so that no
//! configuration has to change when a machine does.
//!
//! An address record (`dns:`) is asked of the system's resolver, which knows /etc/hosts too; a service record
//! (`srv:`), which that does not know, of the name servers in /etc/resolv.conf.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use raft::Lookup;
use tokio::time::{Instant, timeout};

use crate::config::PORT;

const DNS: &str = "dns:";
const SRV: &str = "srv:";
const LIMIT: Duration = Duration::from_secs(4);
/// A machine that looks for its cluster asks its peers some times a second, and name servers less often.
const KEPT_FOR: Duration = Duration::from_secs(3);

/// `join` as people write it, with the port that they leave out.
pub fn place(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix(DNS) {
        Some(name) => format!("{DNS}{}", raft::with_port(name, PORT)),
        None if text.starts_with(SRV) => text.into(),
        None => raft::with_port(text, PORT),
    }
}

/// Asks by names, and keeps answers for a moment.
#[derive(Debug, Default)]
pub struct Names {
    kept: Mutex<BTreeMap<String, (Instant, Vec<String>)>>,
}

#[async_trait]
impl Lookup for Names {
    async fn addresses(&self, place: &str) -> io::Result<Vec<String>> {
        if !place.starts_with(DNS) && !place.starts_with(SRV) {
            return Ok(vec![place.into()]);
        }
        if let Some((at, found)) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(place)
            && at.elapsed() < KEPT_FOR
        {
            return Ok(found.clone());
        }
        let asked = async {
            match place.strip_prefix(DNS) {
                Some(name) => by_address(name).await,
                None => by_service(&place[SRV.len()..], system()?).await,
            }
        };
        let found = timeout(LIMIT, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(place.into(), (Instant::now(), found.clone()));
        Ok(found)
    }
}

/// Everything that `places` stand for, for a question while no daemon runs here. What is not known now is
/// left out.
pub async fn known(places: &[String]) -> Vec<String> {
    let names = Names::default();
    let mut all = Vec::new();
    for place in places {
        match names.addresses(place).await {
            Ok(found) => all.extend(found),
            Err(error) => tracing::warn!(place, %error, "nobody is asked there"),
        }
    }
    all
}

/// In an order that is the same everywhere.
async fn by_address(name: &str) -> io::Result<Vec<String>> {
    let mut found: Vec<_> = tokio::net::lookup_host(name).await?.collect();
    found.sort();
    found.dedup();
    Ok(found.iter().map(ToString::to_string).collect())
}

fn system() -> io::Result<TokioResolver> {
    let builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    builder.build().map_err(io::Error::other)
}

/// RFC 2782; priorities and weights mean nothing here, since all are asked.
async fn by_service(name: &str, resolver: TokioResolver) -> io::Result<Vec<String>> {
    let found = resolver.lookup(name, RecordType::SRV).await.map_err(io::Error::other)?;
    let mut found: Vec<String> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(service) if !service.target.is_root() => {
                Some(format!("{}:{}", service.target.to_utf8().trim_end_matches('.'), service.port))
            }
            _ => None,
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::SRV;
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn a_place_is_written_with_its_port() {
        let check = |text: &str, expected: &str| assert_eq!(place(text), expected);
        check("a", "a:7340");
        check(" [::1]:1 ", "[::1]:1");
        check("dns:coreinit.example", "dns:coreinit.example:7340");
        check("dns:coreinit.example:99", "dns:coreinit.example:99");
        check("srv:_coreinit._tcp.example", "srv:_coreinit._tcp.example");
    }

    #[tokio::test]
    async fn a_name_leads_to_its_addresses() {
        let names = Names::default();
        let local = names.addresses("dns:localhost:7340").await.unwrap();
        assert!(local.contains(&"127.0.0.1:7340".to_string()), "{local:?}");
        assert_eq!(names.addresses("10.0.0.1:7340").await.unwrap(), ["10.0.0.1:7340"]);
        assert!(names.addresses("dns:nowhere.invalid:7340").await.is_err());
    }

    /// A name server that knows one service.
    async fn name_server() -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut bytes).await {
                let asked = Message::from_vec(&bytes[..count]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                answer.queries.push(query.clone());
                if query.name().to_utf8() == "_coreinit._tcp.example." {
                    for (host, port) in [("b.example.", 7341), ("a.example.", 7340)] {
                        let service = SRV::new(1, 1, port, Name::from_utf8(host).unwrap());
                        answer.answers.push(Record::from_rdata(
                            query.name().clone(),
                            60,
                            RData::SRV(service),
                        ));
                    }
                } else {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_service_leads_to_its_machines() {
        let mut connection = ConnectionConfig::udp();
        connection.port = name_server().await;
        let mut server = NameServerConfig::udp("127.0.0.1".parse().unwrap());
        server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let resolver = || {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .build()
                .unwrap()
        };
        let found = by_service("_coreinit._tcp.example.", resolver()).await.unwrap();
        assert_eq!(found, ["a.example:7340", "b.example:7341"]);
        let missing = by_service("_other._tcp.example.", resolver()).await.unwrap_err();
        assert!(!missing.to_string().is_empty(), "{missing}");
    }
}
