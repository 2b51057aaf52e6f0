//! redb, the second engine: the yard-stick for sled and the way out of it. It needs no containment. It looks
//! at the checksums of its pages only where it is asked to, so that is done at each start.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Batch, Engine, Table, Visit, damaged};

const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("log");
const CACHE_BYTES: usize = 4 << 20;

pub struct RedbEngine {
    db: Database,
}

impl RedbEngine {
    pub fn open(dir: &Path) -> io::Result<RedbEngine> {
        fs::create_dir_all(dir)?;
        let mut db = Database::builder();
        let mut db = db.set_cache_size(CACHE_BYTES).create(dir.join("db")).map_err(from_redb)?;
        // A page that is not what was written is an error.
        if !db.check_integrity().map_err(from_redb)? {
            tracing::warn!("redb has put its own accounts of {} in order", dir.join("db").display());
        }
        let write = db.begin_write().map_err(from_redb)?;
        write.open_table(META).map_err(from_redb)?;
        write.open_table(LOG).map_err(from_redb)?;
        write.commit().map_err(from_redb)?;
        File::open(dir)?.sync_all()?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all()?,
            _ => {}
        }
        Ok(RedbEngine { db })
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> io::Result<()> {
        let mut transaction = self.db.begin_write().map_err(from_redb)?;
        transaction.set_durability(durability).map_err(from_redb)?;
        {
            let mut meta = transaction.open_table(META).map_err(from_redb)?;
            let mut log = transaction.open_table(LOG).map_err(from_redb)?;
            for write in &batch.writes {
                let table = match write.table {
                    Table::Meta => &mut meta,
                    Table::Log => &mut log,
                };
                match &write.value {
                    Some(value) => table.insert(write.key.as_slice(), value.as_slice()).map_err(from_redb)?,
                    None => table.remove(write.key.as_slice()).map_err(from_redb)?,
                };
            }
        }
        transaction.commit().map_err(from_redb)
    }
}

fn from_redb(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::DatabaseAlreadyOpen => io::ErrorKind::ResourceBusy.into(),
        error => damaged(error),
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    match table {
        Table::Meta => META,
        Table::Log => LOG,
    }
}

impl Engine for RedbEngine {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let read = self.db.begin_read().map_err(from_redb)?;
        let table = read.open_table(definition(table)).map_err(from_redb)?;
        let found = table.get(key).map_err(from_redb)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let read = self.db.begin_read().map_err(from_redb)?;
        let table = read.open_table(definition(table)).map_err(from_redb)?;
        for found in table.range(from..).map_err(from_redb)? {
            let (key, value) = found.map_err(from_redb)?;
            if let ControlFlow::Break(()) = visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        self.commit(batch, Durability::None)
    }

    fn sync(&self) -> io::Result<()> {
        self.commit(&Batch::default(), Durability::Immediate)
    }
}
