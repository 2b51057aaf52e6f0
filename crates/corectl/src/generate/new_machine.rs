//! Which files and units a new machine gets, whatever form they are written in.

use anyhow::{bail, ensure};

/// What the cluster's administrator asked for.
pub struct Wishes<'a> {
    pub token: &'a str,
    pub addresses: &'a [String],
    /// `KEY=VALUE`.
    pub metadata: &'a [String],
    /// Where the programs are fetched from; `None`: the machine has them.
    pub programs: Option<&'a str>,
    pub reboot_strategy: Option<&'a str>,
}

pub struct NewMachine {
    pub files: Vec<NewFile>,
    pub units: Vec<NewUnit>,
}

pub struct NewFile {
    pub path: String,
    pub mode: u32,
    pub contents: Contents,
}

pub enum Contents {
    Text(String),
    /// To be fetched from that URL.
    From(String),
}

/// All of them are enabled, but for those that others start.
pub struct NewUnit {
    pub name: &'static str,
    pub enabled: bool,
    /// `None`: the machine has it.
    pub text: Option<String>,
}

const TOKEN_FILE: &str = "/etc/coreinit/join-token";
/// In the search path of Flatcar, whose /usr is not to be written to.
const OWN_BIN: &str = "/opt/bin";
/// Of a package.
const USR_BIN: &str = "/usr/bin";

impl NewMachine {
    pub fn new(wishes: &Wishes) -> anyhow::Result<NewMachine> {
        check(wishes)?;
        let bin = if wishes.programs.is_some() { OWN_BIN } else { USR_BIN };
        let text = |path: &str, mode, text: String| NewFile {
            path: path.into(),
            mode,
            contents: Contents::Text(text),
        };
        let mut files = vec![text(TOKEN_FILE, 0o600, format!("{}\n", wishes.token))];
        if !wishes.metadata.is_empty() {
            files.push(text("/etc/coreinit/coreinitd.toml", 0o644, configuration(wishes.metadata)));
        }
        let mut units = Vec::new();
        let packaged = |name, text: &str, enabled| NewUnit {
            name,
            enabled,
            text: wishes.programs.map(|_| text.replace(USR_BIN, bin)),
        };
        if let Some(url) = wishes.programs {
            let fetched = ["coreinitd", "corectl"].map(|program| NewFile {
                path: format!("{bin}/{program}"),
                mode: 0o755,
                contents: Contents::From(format!("{}/{program}", url.trim_end_matches('/'))),
            });
            files.extend(fetched);
            units.push(packaged("coreinitd.service", DAEMON, true));
        }
        if let Some(strategy) = wishes.reboot_strategy {
            files.push(text("/etc/coreinit/update.conf", 0o644, format!("REBOOT_STRATEGY={strategy}\n")));
            let is_on = strategy != "off";
            units.push(packaged("coreinit-reboot.path", REBOOT_PATH, is_on));
            units.push(packaged("coreinit-reboot.service", REBOOT, false));
            units.push(packaged("coreinit-reboot-done.service", REBOOT_DONE, true));
            // What the package has and nobody enables here needs no word.
            units.retain(|unit| unit.enabled || unit.text.is_some());
        }
        let join = join_unit(bin, wishes.addresses);
        units.push(NewUnit { name: "coreinit-join.service", enabled: true, text: Some(join) });
        Ok(NewMachine { files, units })
    }
}

const DAEMON: &str = include_str!("../../../../dist/systemd/coreinitd.service");
const REBOOT_PATH: &str = include_str!("../../../../dist/systemd/coreinit-reboot.path");
const REBOOT: &str = include_str!("../../../../dist/systemd/coreinit-reboot.service");
const REBOOT_DONE: &str = include_str!("../../../../dist/systemd/coreinit-reboot-done.service");

/// Each of these ends up in a line of its own, of a file that root reads.
fn check(wishes: &Wishes) -> anyhow::Result<()> {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_plain(wishes.token) && wishes.token.starts_with("coreinit-"), "--token: this is no token");
    for address in wishes.addresses {
        let good = |c: u8| c.is_ascii_alphanumeric() || b".:-_[]".contains(&c);
        ensure!(
            is_plain(address) && address.bytes().all(good) && !address.starts_with('-'),
            "--address: {address:?} is no HOST or HOST:PORT"
        );
    }
    for pair in wishes.metadata {
        match pair.split_once('=') {
            Some((key, value))
                if !key.is_empty() && !(key.chars().chain(value.chars())).any(char::is_control) => {}
            _ => bail!("--metadata: {pair:?} is no KEY=VALUE"),
        }
    }
    if let Some(url) = wishes.programs {
        let known = ["https://", "http://", "s3://", "gs://", "tftp://"];
        ensure!(
            is_plain(url) && known.iter().any(|scheme| url.starts_with(scheme)) && !url.contains(['\'', '"']),
            "--programs: {url:?} is no URL"
        );
    }
    Ok(())
}

/// The daemon's configuration: a key of metadata may be any text.
fn configuration(metadata: &[String]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let pairs = metadata.iter().filter_map(|pair| pair.split_once('='));
    let lines = pairs.map(|(key, value)| format!("{} = {}\n", quoted(key), quoted(value)));
    format!("[metadata]\n{}", lines.collect::<String>())
}

/// Once the machine is a member, the token is gone from it and nothing is left to be done.
fn join_unit(bin: &str, addresses: &[String]) -> String {
    format!(
        "[Unit]\n\
         Description=Join the coreinit cluster\n\
         ConditionPathExists={TOKEN_FILE}\n\
         Wants=network-online.target coreinitd.service\n\
         After=network-online.target coreinitd.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         StandardInput=file:{TOKEN_FILE}\n\
         ExecStart={bin}/corectl --context local cluster join --unless-member - {}\n\
         ExecStartPost=/bin/rm -f {TOKEN_FILE}\n\
         # The members, the network or the daemon may not be there yet.\n\
         Restart=on-failure\n\
         RestartSec=5s\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        addresses.join(" ")
    )
}
