//! The bucket that the node used at an address. If another is suddenly there, the bucket was
//! emptied, or its disk is not mounted. Serving it would look as if all volumes were gone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};

use crate::home::layout::Layout;
use crate::home::note;

/// Prefix of addresses whose bucket is new with each start.
pub(crate) const NEW_EACH_TIME: &str = "memory:";

#[derive(Serialize, Deserialize)]
struct Noted {
    url: String,
    id: String,
}

/// Checks that the bucket at an address is the one from before, and notes it.
///
/// # Errors
/// `Invalid` if it is another.
pub(crate) fn enter(layout: &Layout, url: &str, id: &str) -> Result<()> {
    if url.starts_with(NEW_EACH_TIME) {
        return Ok(());
    }
    let file = layout.bucket_place();
    match read(layout)? {
        Some(before) if before.url == url && before.id == id => Ok(()),
        Some(before) if before.url == url => Err(refusal(url, &before.id, file)),
        _ => note::write(&file, &Noted { url: url.to_owned(), id: id.to_owned() }),
    }
}

/// True if the node used a bucket at this address last. Then the bucket is known to exist and to be
/// usable.
pub(crate) fn is_known(layout: &Layout, url: &str) -> Result<bool> {
    let noted = read(layout)?;
    Ok(noted.is_some_and(|before| before.url == url))
}

fn read(layout: &Layout) -> Result<Option<Noted>> {
    let noted = note::read::<Noted>(&layout.bucket_place());
    noted.map_err(|error| {
        note::advised(
            &error,
            "remove it if the bucket of the settings is the one that the node used",
        )
    })
}

fn refusal(url: &str, before: &str, file: PathBuf) -> Error {
    let message = format!(
        "the bucket at {url} is not the one that this node used there ({before}): is its disk \
         mounted? Put it back, or remove {} to go on with the one that is there",
        file.display()
    );
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_bucket_at_the_same_address_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        assert!(!is_known(&layout, "file:///a").expect("no note"));
        enter(&layout, "file:///a", "1").expect("the first");
        assert!(is_known(&layout, "file:///a").expect("a note"));
        assert!(!is_known(&layout, "file:///b").expect("a note"));
        enter(&layout, "file:///a", "1").expect("the same");
        enter(&layout, "memory://", "9").expect("always another");
        let error = enter(&layout, "file:///a", "2").expect_err("another");
        assert!(error.message().contains("bucket-place"), "{error}");
        enter(&layout, "file:///b", "3").expect("at another address");
        enter(&layout, "file:///a", "2").expect("chosen again");
        std::fs::remove_file(layout.bucket_place()).expect("there");
        enter(&layout, "file:///a", "4").expect("as was asked for");
    }
}
