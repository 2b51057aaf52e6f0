//! The contexts that a user keeps: clusters to talk to from afar, by names of the user's own, in
//! one file that
//! nobody else can read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use api::{CONTEXT_BYTES_MAX, Context};
use serde::{Deserialize, Serialize};

/// The daemon of this machine, which needs no context: the name cannot be given to one.
pub const LOCAL: &str = "local";

/// Of the whole file; a context has some two thousand.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contexts {
    /// The one that is used when none is named; without it, the daemon of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those of the user; none when there is no file, or no home to look into.
    pub fn load() -> anyhow::Result<Contexts> {
        match place() {
            Some(path) => Contexts::load_from(&path),
            None => Ok(Contexts::default()),
        }
    }

    fn load_from(path: &Path) -> anyhow::Result<Contexts> {
        let Some(text) = read_private(path, FILE_BYTES_MAX)? else { return Ok(Contexts::default()) };
        serde_json::from_str(&text).map_err(|error| {
            // serde's own words may quote a key.
            let (path, line) = (path.display(), error.line());
            anyhow::anyhow!("{path} is damaged at line {line}; move it away, and add the contexts anew")
        })
    }

    /// Puts them into the file, whole or not at all.
    pub fn save(&self) -> anyhow::Result<()> {
        let path = place().context("there is no home to keep contexts in; set HOME")?;
        self.save_to(&path)
    }

    fn save_to(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("the contexts' file is in a folder")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let new = folder.join(format!("contexts.{}", std::process::id()));
        // Of an earlier process with this id, which did not come to its end.
        let _ = fs::remove_file(&new);
        let text = serde_json::to_string_pretty(self).context("cannot write the contexts down")?;
        let put = write_private(&new, &text).and_then(|()| Ok(fs::rename(&new, path)?));
        if put.is_err() {
            let _ = fs::remove_file(&new);
        }
        put.with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn get(&self, name: &str) -> anyhow::Result<&Context> {
        self.contexts.get(name).with_context(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            match known.is_empty() {
                true => format!(
                    "there is no context {name:?}; add one with `corectl context add {name} \
                     FILE`, out of the \
                     file that `corectl cluster invite` has made"
                ),
                false => format!("there is no context {name:?}; there are {}, and {LOCAL}", known.join(", ")),
            }
        })
    }

    /// 1 to 64 of `[0-9a-zA-Z_.@-]`, and not the name of the daemon here.
    pub fn check_name(name: &str) -> anyhow::Result<()> {
        ensure!(name != LOCAL, "{LOCAL:?} is the daemon of this machine; take another name");
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'@' | b'-');
        let is_name = (1..=64).contains(&name.len()) && name.bytes().all(good);
        ensure!(is_name, "a context's name is 1 to 64 of the characters 0-9 a-z A-Z _ . @ -, not {name:?}");
        Ok(())
    }
}

/// `$XDG_CONFIG_HOME/coreinit/contexts`, or the same under `~/.config`.
fn place() -> Option<PathBuf> {
    let set = |key| std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("coreinit/contexts"))
}

/// A context that was handed over: from a file, or from standard input.
pub fn read_one(from: &str) -> anyhow::Result<Context> {
    let text = match from {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(CONTEXT_BYTES_MAX + 1).read_to_string(&mut text);
            read.context("cannot read standard input")?;
            ensure!(text.len() as u64 <= CONTEXT_BYTES_MAX, "what came is too long for a context");
            text
        }
        path => read_private(Path::new(path), CONTEXT_BYTES_MAX)?
            .with_context(|| format!("there is no file {path}"))?,
    };
    Context::parse(&text)
        .with_context(|| format!("cannot use {}", if from == "-" { "what came" } else { from }))
}

/// The text of a file that only its owner can read; `None` when it is not there.
fn read_private(path: &Path, bytes_max: u64) -> anyhow::Result<Option<String>> {
    let at = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {at}")),
    };
    let metadata = file.metadata().with_context(|| format!("cannot read {at}"))?;
    if metadata.mode() & 0o077 != 0 {
        bail!(
            "{at} holds a key, and can be read by others than its owner; use `chmod 600 {at}`, \
             and if they may \
             have read it, have the person invited again with --replace"
        );
    }
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).with_context(|| format!("cannot read {at}"))?;
    ensure!(text.len() as u64 <= bytes_max, "{at} is larger than {bytes_max} bytes");
    Ok(Some(text))
}

/// A new file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn context() -> Context {
        let text = r#"{"version":1,"cluster":"test","clusterId":"c1","person":"alice","role":"viewer",
            "expires":7,"addresses":["h1:7421"],"authority":"A","certificate":"B","key":"swordfish"}"#;
        Context::parse(text).unwrap()
    }

    #[test]
    fn what_is_kept_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config/coreinit/contexts");
        assert_eq!(Contexts::load_from(&path).unwrap(), Contexts::default());
        let mut contexts = Contexts { current: Some("a".into()), ..Contexts::default() };
        contexts.contexts.insert("a".into(), context());
        contexts.save_to(&path).unwrap();
        contexts.save_to(&path).unwrap();
        assert_eq!(Contexts::load_from(&path).unwrap(), contexts);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = Contexts::load_from(&path).unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "{open}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{\"contexts\": \"swordfish\"}").unwrap();
        let damaged = Contexts::load_from(&path).unwrap_err().to_string();
        assert!(damaged.contains("is damaged") && !damaged.contains("swordfish"), "{damaged}");
    }

    #[test]
    fn who_is_not_there_is_told_with_those_who_are() {
        let mut contexts = Contexts::default();
        let told = |contexts: &Contexts| contexts.get("b").unwrap_err().to_string();
        assert!(told(&contexts).contains("corectl context add b FILE"), "{}", told(&contexts));
        contexts.contexts.insert("a".into(), context());
        assert!(told(&contexts).contains("there are a, and local"), "{}", told(&contexts));
        assert!(contexts.get("a").is_ok());
        for bad in ["", "local", "a b", "a/b"] {
            assert!(Contexts::check_name(bad).is_err(), "{bad}");
        }
    }
}
