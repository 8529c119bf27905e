//! Parked tails on this machine's disk: a directory for each.

use skerry_log::{Disk, FileDisk};
use skerry_volume::Parking;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

/// Ending of a tail's directory until all of the tail is in it.
const UNFINISHED: &str = ".part";

/// A directory of parked tails.
pub(crate) struct ParkedDir {
    dir: PathBuf,
}

impl ParkedDir {
    /// Opens the directory. Removes unfinished tails from a crash.
    pub(crate) fn shared(dir: PathBuf) -> Arc<dyn Parking> {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                // It takes space and nothing else.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Arc::new(Self { dir })
    }

    fn unfinished(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{UNFINISHED}"))
    }
}

/// Turns a missing file into no error.
fn unless_missing<T: Default>(done: io::Result<T>) -> io::Result<T> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        done => done,
    }
}

impl Parking for ParkedDir {
    fn begin(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let dir = self.unfinished(name);
        unless_missing(fs::remove_dir_all(&dir))?;
        fs::create_dir_all(&dir)?;
        Ok(Arc::new(FileDisk::new(dir)))
    }

    fn give_up(&self, name: &str) {
        // If it stays, the next start removes it.
        let _ = fs::remove_dir_all(self.unfinished(name));
    }

    fn finish(&self, name: &str) -> io::Result<()> {
        fs::rename(self.unfinished(name), self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()?;
        // The directory itself may be new.
        self.dir.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(UNFINISHED) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        let dir = self.dir.join(name);
        fs::metadata(&dir)?;
        Ok(Arc::new(FileDisk::new(dir)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        // Under the other name, a crash half-way leaves nothing that looks like a tail.
        let dir = self.unfinished(name);
        unless_missing(fs::remove_dir_all(&dir))?;
        unless_missing(fs::rename(self.dir.join(name), &dir))?;
        unless_missing(File::open(&self.dir).and_then(|dir| dir.sync_all()))?;
        unless_missing(fs::remove_dir_all(dir))
    }

    fn place(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_listed_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let parked = ParkedDir { dir: dir.path().join("parked") };
        assert_eq!(parked.list().expect("lists"), Vec::<String>::new());
        let disk = parked.begin("tail").expect("begins");
        drop(disk.create("left").expect("creates"));
        assert_eq!(parked.list().expect("lists"), Vec::<String>::new());
        let disk = parked.begin("tail").expect("begins again");
        assert!(disk.list().expect("lists").is_empty(), "what was left is gone");
        parked.finish("tail").expect("finishes");
        assert_eq!(parked.list().expect("lists"), ["tail"]);
        drop(parked.begin("other").expect("begins").create("part").expect("creates"));
        let after_crash = ParkedDir::shared(dir.path().join("parked"));
        assert_eq!(after_crash.list().expect("lists"), ["tail"]);
        let left = fs::read_dir(dir.path().join("parked")).expect("there").count();
        assert_eq!(left, 1, "what was not finished takes no space");
        assert!(fs::metadata(parked.place("tail")).expect("there").is_dir());
        assert!(parked.open("tail").expect("opens").list().expect("lists").is_empty());
        parked.remove("tail").expect("removes");
        parked.remove("tail").expect("nothing to remove");
        assert!(parked.open("tail").is_err());
        assert_eq!(parked.list().expect("lists"), Vec::<String>::new());
    }
}
