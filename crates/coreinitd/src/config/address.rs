//! Where this machine is reached, when nobody said so.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, bail};

/// Of `HOST:PORT`.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where other machines reach this one, when nobody said: the address it listens on, or the local end of the
/// way to one of `join`, or of the default route. Nothing is sent.
pub(crate) fn own_address(listen: &str, join: &[String]) -> anyhow::Result<String> {
    let (host, port) = listen.rsplit_once(':').context("`listen` has no port")?;
    let any = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if !any {
        return Ok(listen.into());
    }
    let networks = networks(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let abroad = ["192.0.2.1:9", "[2001:db8::1]:9"].map(String::from);
    for way in join.iter().chain(&abroad).chain(&networks) {
        let family = if way.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let Ok(socket) = UdpSocket::bind(family) else { continue };
        if socket.connect(way).is_err() {
            continue;
        }
        let Ok(local) = socket.local_addr() else { continue };
        if !local.ip().is_loopback() && !local.ip().is_unspecified() {
            let ip = local.ip();
            let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            return Ok(format!("{host}:{port}"));
        }
    }
    bail!("cannot tell at which address other machines reach this one; set `advertise`")
}

/// An address in each network that this machine is part of, from the kernel's table of routes: hexadecimal,
/// in the machine's byte order.
fn networks(table: &str) -> Vec<String> {
    let network = |line: &str| {
        let number = u32::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok()?;
        let network = Ipv4Addr::from(number.to_ne_bytes());
        (!network.is_unspecified()).then(|| format!("{}:9", Ipv4Addr::from(u32::from(network) + 1)))
    };
    table.lines().skip(1).filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_default_route_the_machines_own_networks_are_ways() {
        let table = "Iface\tDestination\tGateway\neth0\t00000000\t0100000A\nhost0\t00004D0A\t00000000\n";
        if cfg!(target_endian = "little") {
            assert_eq!(networks(table), ["10.77.0.1:9"]);
        }
        assert!(networks("").is_empty() && networks("Iface\nx").is_empty());
    }
}
