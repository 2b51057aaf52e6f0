//! Every key of the configuration file, with its default and what it does: the reference in
//! `docs/configuration.md` and the manual page are made of this table, and tests hold it against what is
//! read.

use clap::CommandFactory;

use super::Flags;

/// One key of `coreinitd.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// In Markdown, as is `meaning`.
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// In the order in which they are documented.
pub const KEYS: &[Key] = &[
    key(
        "bootstrap_expect",
        "0",
        "how many machines form the cluster together; equal on all. 0: wait for `corectl cluster \
         init`, or join",
    ),
    key(
        "join",
        "`[]`",
        "the machines to form or join a cluster with, `HOST[:PORT]`; or a name that leads to them: \
         `dns:NAME[:PORT]` is every address of that name, `srv:_coreinit._tcp.example` every machine and \
         port of its service records",
    ),
    key(
        "listen",
        "`0.0.0.0:7340`",
        "where to listen for other machines, once the machine belongs to a cluster. On loopback, or \
         with `insecure_transport`, nothing is encrypted, and it stays on `127.0.0.1:7340` unless \
         told otherwise",
    ),
    key(
        "advertise",
        "found",
        "where other machines reach this one; found from `listen`, the way to one of `join`, the \
         default route, or a network that the machine is in",
    ),
    key("cluster_secret_file", "none", "a file with the cluster's secret: see *Who is let in*"),
    key(
        "insecure_transport",
        "`false`",
        "`true`: machines know each other by nothing, and whatever they say is open. Needed for an \
         `api_listen` beyond loopback: nothing on those ports is encrypted or checked",
    ),
    key(
        "data_dir",
        "`/var/lib/coreinit`",
        "this machine's share of the state; must survive reboots, on a disk that honours `fdatasync`. \
         Another folder has to be opened for the daemon: see [security](security.md)",
    ),
    key("runtime_dir", "`/run/coreinit`", "unit files and what was done with them; must not survive reboots"),
    key("socket", "`/run/coreinit.sock`", "the API; mode 0660, group `coreinit` if there is one"),
    key(
        "fleet_socket",
        "none",
        "the same API once more, such as `\"/run/fleet.sock\"`, where fleet's clients look for it",
    ),
    key(
        "api_listen",
        "`[]`",
        "the same API over TCP, such as `[\"127.0.0.1:49153\"]`: plain HTTP, and whoever reaches it \
         may do what `api_listen_role` may. Beyond loopback only with `insecure_transport = true`",
    ),
    key(
        "api_listen_role",
        "`\"operator\"`",
        "what callers of `api_listen` may do, who are not known: `\"viewer\"`, `\"operator\"` or \
         `\"admin\"`; see [roles](roles.md)",
    ),
    key(
        "api_tls_listen",
        "none",
        "people with a certificate of `corectl cluster invite` are served on the port of `listen`, over \
         TLS 1.3; with this, such as `\"0.0.0.0\"`, on a port of their own as well: 7421 unless another is \
         named, the same on all machines",
    ),
    key(
        "etcd_listen",
        "`[]`",
        "etcd's v2 key API out of the cluster's own state, such as `\"127.0.0.1:4001\"`, or a list: for \
         units that announce themselves with `etcdctl` or `curl`. Plain HTTP, for whoever reaches it; beyond \
         loopback only with `insecure_transport = true`. See [etcd.md](etcd.md)",
    ),
    key(
        "socket_role",
        "`\"admin\"`",
        "what those may do who can open `socket` or `fleet_socket` and are not root",
    ),
    key("machine_id", "`/etc/machine-id`", "this machine's id"),
    key(
        "machine_name",
        "the host name",
        "what people call this machine; `corectl` takes it wherever it takes a machine",
    ),
    key("public_ip", "the address peers use", "the address that people and fleet's clients are shown"),
    key("metadata", "`{}`", "`{ disk = \"ssd\", region = \"eu\" }`: for `MachineMetadata=`"),
    key("cluster_name", "`coreinit`", "used once, when the cluster is formed"),
    key(
        "machine_lost_after",
        "`\"6s\"`",
        "silence after which a machine's units start elsewhere; at least `\"2s\"`",
    ),
    key(
        "stop_units_on_exit",
        "`false`",
        "`true`: as fleet did, SIGTERM stops and unloads the cluster's units on this machine before \
         the daemon ends. When it comes back, they are started anew; a machine that stays away loses \
         them to others after `machine_lost_after`",
    ),
    key(
        "engine",
        "`\"sled\"`",
        "what the store writes with: `\"sled\"` or `\"redb\"`; fixed once the store exists",
    ),
    key(
        "backend",
        "`\"raft\"`",
        "`\"etcd\"`: the state is kept in an etcd that stands already: see [etcd](etcd.md)",
    ),
    key(
        "etcd_endpoints",
        "`127.0.0.1:2379` and `:4001`",
        "the members of one etcd cluster. One is used until it fails, then the next",
    ),
    key("etcd_api", "found out", "`\"v2\"` or `\"v3\"`. Without it: v3 from etcd 3.3 on, else v2"),
    key("etcd_prefix", "`\"/coreinit/\"`", "everything is kept below it; several clusters can share an etcd"),
    key(
        "etcd_user",
        "none",
        "the name by which etcd knows the daemons; must be allowed to read and write below the prefix",
    ),
    key("etcd_password_file", "none", "a file with the password of `etcd_user`"),
    key("etcd_ca_file", "none", "who vouches for `https` endpoints, in PEM"),
    key("etcd_cert_file", "none", "this machine's certificate for etcd, in PEM, when etcd asks for one"),
    key("etcd_key_file", "none", "the key of `etcd_cert_file`, in PEM"),
    key("bus", "the system bus", "D-Bus address of the systemd to drive"),
    key("log", "`\"info,openraft=error\"`", "what to log, as `tracing`'s filters are written"),
];

/// The keys that are also flags and variables, by their flags: `--data-dir` and `COREINIT_DATA_DIR`.
pub fn flags() -> Vec<String> {
    let command = Flags::command();
    let flags = command.get_arguments().filter(|flag| flag.get_env().is_some());
    flags.filter_map(|flag| flag.get_long()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    /// What the file's reader says that it would have taken.
    fn read_keys() -> Vec<String> {
        let error = toml::from_str::<File>("no_such_key = 1").expect_err("it is refused").to_string();
        let (_, listed) = error.split_once("expected one of").expect("the keys are listed");
        listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_that_is_read_is_in_the_table() {
        let (read, mut told) = (read_keys(), KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
        assert!(read.len() > 20, "the keys are found: {read:?}");
        let mut read: Vec<&str> = read.iter().map(String::as_str).collect();
        read.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, read, "add a row to KEYS for what is new, and regenerate the docs");
    }

    #[test]
    fn every_flag_that_can_be_a_variable_is_a_key() {
        let keys: Vec<String> = KEYS.iter().map(|key| key.name.replace('_', "-")).collect();
        let files = ["config", "fleet-config", "cloud-config"];
        let strange: Vec<String> =
            flags().into_iter().filter(|flag| !keys.contains(flag) && !files.contains(&&**flag)).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}
