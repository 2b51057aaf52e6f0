//! Which cluster this machine belongs to, in a file: an etcd that has lost its data, or another etcd under
//! the same address, must not look like a cluster in which no unit is wanted.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cluster::Cluster;

const FILE: &str = "etcd-cluster";

pub struct Belonging {
    path: PathBuf,
    known: Mutex<Option<String>>,
}

impl Belonging {
    pub fn open(dir: &Path) -> io::Result<Belonging> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(FILE);
        let known = match std::fs::read_to_string(&path) {
            Ok(id) => Some(id.trim().to_string()).filter(|id| !id.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Belonging { path, known: Mutex::new(known) })
    }

    /// Whether what etcd holds is this machine's cluster; why not, in words. The first one that is seen is.
    pub fn check(&self, found: Option<&Cluster>) -> Result<(), String> {
        let mut known = self.known.lock().expect("no holder of this lock panics");
        let path = self.path.display();
        match (&*known, found) {
            (None, None) => Ok(()),
            (Some(known), Some(found)) if *known == found.id => Ok(()),
            (None, Some(found)) => {
                write(&self.path, &found.id).map_err(|error| format!("cannot write {path}: {error}"))?;
                *known = Some(found.id.clone());
                Ok(())
            }
            (Some(known), None) => Err(format!(
                "etcd holds no cluster, and this machine belongs to cluster {known}: was etcd emptied, or \
                 is it another one? Nothing is changed or stopped. To begin anew, remove {path} and restart \
                 the daemon"
            )),
            (Some(known), Some(found)) => Err(format!(
                "etcd holds cluster {}, and this machine belongs to cluster {known}. Nothing is changed or \
                 stopped. To join the other one, remove {path} and restart the daemon",
                found.id
            )),
        }
    }
}

fn write(path: &Path, id: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cluster =
            |id: &str| Cluster { id: id.into(), name: "c".into(), feature_level: 1, ..Cluster::default() };
        let belonging = Belonging::open(dir.path()).unwrap();
        assert_eq!(belonging.check(None), Ok(()));
        assert_eq!(belonging.check(Some(&cluster("a"))), Ok(()));
        let again = Belonging::open(dir.path()).unwrap();
        assert_eq!(again.check(Some(&cluster("a"))), Ok(()));
        assert!(again.check(None).unwrap_err().contains("belongs to cluster a"));
        assert!(again.check(Some(&cluster("b"))).unwrap_err().contains("holds cluster b"));
    }
}
