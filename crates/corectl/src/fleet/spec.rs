//! The commands and flags that fleet had, and what they are for.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Int,
    /// Seconds, with a fraction if one likes.
    Float,
}

#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    /// One letter for the same.
    pub short: Option<&'static str>,
    pub kind: Kind,
    pub default: &'static str,
    pub what: &'static str,
}

#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    /// What follows the name.
    pub usage: &'static str,
    pub what: &'static str,
    pub more: &'static str,
    pub flags: &'static [Flag],
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, what: &'static str) -> Flag {
    Flag { name, short: None, kind, default, what }
}

const fn short(
    name: &'static str,
    letter: &'static str,
    kind: Kind,
    default: &'static str,
    what: &'static str,
) -> Flag {
    Flag { name, short: Some(letter), kind, default, what }
}

const OLD: &str = "Has no effect any more.";

pub const GLOBAL: &[Flag] = &[
    flag("ca-file", Kind::Text, "", OLD),
    flag("cert-file", Kind::Text, "", OLD),
    flag("debug", Kind::Bool, "false", "Print each request, and what it was answered, to stderr."),
    flag("driver", Kind::Text, "API", "How the cluster is reached; API is the only way left."),
    flag(
        "endpoint",
        Kind::Text,
        "unix:///var/run/fleet.sock",
        "The daemon: unix:///PATH or http://HOST:PORT.",
    ),
    flag("etcd-cafile", Kind::Text, "", OLD),
    flag("etcd-certfile", Kind::Text, "", OLD),
    flag("etcd-key-prefix", Kind::Text, "/_coreos.com/fleet/", OLD),
    flag("etcd-keyfile", Kind::Text, "", OLD),
    flag("experimental-api", Kind::Bool, "true", OLD),
    short("help", "h", Kind::Bool, "false", "Print how it is used."),
    flag("key-file", Kind::Text, "", OLD),
    flag("known-hosts-file", Kind::Text, "~/.fleetctl/known_hosts", "Where ssh keeps the keys of machines."),
    flag("request-timeout", Kind::Float, "3", "Seconds after which a request is given up."),
    flag("ssh-timeout", Kind::Float, "10", "Seconds that ssh may take to connect."),
    flag("ssh-username", Kind::Text, "core", "Whom to be on other machines."),
    flag("strict-host-key-checking", Kind::Bool, "true", "Whether ssh checks the keys of machines."),
    flag("tunnel", Kind::Text, "", "Reach the daemon through ssh to this HOST[:PORT]."),
    short("version", "v", Kind::Bool, "false", "Print the version."),
];

const NO_BLOCK: Flag = flag(
    "no-block",
    Kind::Bool,
    "false",
    "Do not wait until it has come true. Global units are never waited for.",
);
const BLOCK_ATTEMPTS: Flag = flag(
    "block-attempts",
    Kind::Int,
    "0",
    "Wait at most N times two seconds; 0 is no limit. Global units are never waited for.",
);
const REPLACE: Flag =
    flag("replace", Kind::Bool, "false", "Put the local file in the place of the cluster's.");
const SIGN: Flag = flag("sign", Kind::Bool, "false", OLD);
const FULL: Flag = short("full", "l", Kind::Bool, "false", "Print ids and hashes whole.");
const NO_LEGEND: Flag = flag("no-legend", Kind::Bool, "false", "Print no header line.");
const SSH_PORT: Flag = flag("ssh-port", Kind::Int, "22", "The port of the machines' ssh.");

pub const COMMANDS: &[Command] = &[
    Command { name: "cat", usage: "UNIT", what: "Print the file of a unit", more: "", flags: &[] },
    Command {
        name: "destroy",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        what: "Stop units and remove them from the cluster",
        more: "It waits until the units are gone from their machines.",
        flags: &[NO_BLOCK, BLOCK_ATTEMPTS],
    },
    Command {
        name: "fd-forward",
        usage: "SOCKET",
        what: "Carry stdin and stdout to a Unix socket",
        more: "",
        flags: &[],
    },
    Command { name: "help", usage: "[COMMAND]", what: "Tell how a command is used", more: "", flags: &[] },
    Command {
        name: "journal",
        usage: "[--lines=N] [-f|--follow] [--output=MODE] UNIT",
        what: "Print the journal of a unit",
        more: "The daemons fetch it from the unit's machine; of a global unit, from all its machines.",
        flags: &[
            short("lines", "n", Kind::Int, "10", "How many of its last lines."),
            short("follow", "f", Kind::Bool, "false", "Go on with what comes."),
            flag("output", Kind::Text, "short", "A mode of journalctl."),
            flag("sudo", Kind::Bool, "false", OLD),
            SSH_PORT,
        ],
    },
    Command {
        name: "list-machines",
        usage: "[-l|--full] [--no-legend] [--fields=LIST]",
        what: "List the machines of the cluster that are there",
        more: "",
        flags: &[
            FULL,
            NO_LEGEND,
            flag("fields", Kind::Text, "machine,ip,metadata", "Columns, of: machine,ip,metadata."),
        ],
    },
    Command {
        name: "list-unit-files",
        usage: "[-l|--full] [--no-legend] [--fields=LIST]",
        what: "List the units that the cluster has, and what is wanted of them",
        more: "",
        flags: &[
            FULL,
            NO_LEGEND,
            flag(
                "fields",
                Kind::Text,
                "unit,hash,dstate,state,target",
                "Columns, of: desc,dstate,global,hash,state,target,tmachine,unit.",
            ),
        ],
    },
    Command {
        name: "list-units",
        usage: "[-l|--full] [--no-legend] [--fields=LIST]",
        what: "List the units that machines hold, and what systemd says of them",
        more: "",
        flags: &[
            FULL,
            NO_LEGEND,
            flag(
                "fields",
                Kind::Text,
                "unit,machine,active,sub",
                "Columns, of: active,hash,load,machine,sub,unit.",
            ),
        ],
    },
    Command {
        name: "load",
        usage: "[--no-block|--block-attempts=N] [--replace] UNIT...",
        what: "Have units placed and loaded, without starting them; submit those that are new",
        more: "",
        flags: &[NO_BLOCK, BLOCK_ATTEMPTS, REPLACE, SIGN],
    },
    Command {
        name: "restart",
        usage: "[--block-attempts=N] UNIT...",
        what: "Stop units and start them again, one after another",
        more: "",
        flags: &[BLOCK_ATTEMPTS],
    },
    Command {
        name: "ssh",
        usage: "[-A|--forward-agent] [--ssh-port=N] [--machine|--unit] {MACHINE|UNIT} [COMMAND...]",
        what: "Open a shell on a machine, or run a command there",
        more: "",
        flags: &[
            short("forward-agent", "A", Kind::Bool, "false", "Let the machine use the local ssh agent."),
            short("machine", "m", Kind::Text, "", "The machine, by its id or the beginning of it."),
            short("unit", "u", Kind::Text, "", "The machine that this unit is on."),
            SSH_PORT,
        ],
    },
    Command {
        name: "start",
        usage: "[--no-block|--block-attempts=N] [--replace] UNIT...",
        what: "Have units placed, loaded and started; submit those that are new",
        more: "It waits until the units run, have ended well or have failed.",
        flags: &[NO_BLOCK, BLOCK_ATTEMPTS, REPLACE, SIGN],
    },
    Command {
        name: "status",
        usage: "UNIT...",
        what: "Print what systemctl status says of units on their machines",
        more: "",
        flags: &[SSH_PORT],
    },
    Command {
        name: "stop",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        what: "Stop units; they stay loaded",
        more: "",
        flags: &[NO_BLOCK, BLOCK_ATTEMPTS],
    },
    Command {
        name: "submit",
        usage: "[--replace] UNIT...",
        what: "Give units to the cluster without placing them",
        more: "",
        flags: &[REPLACE, SIGN],
    },
    Command {
        name: "unload",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        what: "Take units from their machines; the cluster keeps them",
        more: "",
        flags: &[NO_BLOCK, BLOCK_ATTEMPTS],
    },
    Command {
        name: "verify",
        usage: "UNIT",
        what: "Was for signed units; always fails",
        more: "",
        flags: &[],
    },
    Command { name: "version", usage: "", what: "Print the version", more: "", flags: &[] },
];
