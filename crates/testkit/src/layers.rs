//! The layers of a crate or a module: its source files name no module of a layer above their own.
//!
//! A layer is a module of the crate's root, with its folder. All paths count, those of tests too,
//! but not those of comments.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// Rows of layers, from above. The layers of a row know nothing of each other. All other modules of
/// the root are leaves, below the last row.
pub type Rows<'a> = &'a [&'a [&'a str]];

/// Lists what breaks the layers of the crate whose source is in this directory, with file and line.
///
/// # Errors
/// The source can't be read.
pub fn faults(src: &Path, rows: Rows<'_>) -> io::Result<Vec<String>> {
    faults_below(src, "crate::", rows)
}

/// As [`faults`], for the folder of a module. `root` is the module's path, as `crate::disk::`.
///
/// # Errors
/// The source can't be read.
pub fn faults_below(src: &Path, root: &str, rows: Rows<'_>) -> io::Result<Vec<String>> {
    let mut faults = Vec::new();
    let files = files_in(src, "")?;
    for (file, text) in &files {
        for (number, line) in text.lines().enumerate() {
            let modules = forbidden(rows, root, file, line).into_iter();
            faults.extend(modules.map(|module| format!("{file}:{}: {module}", number + 1)));
        }
    }
    let names: BTreeSet<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
    let is_gone = |layer: &&str| !names.contains(format!("{layer}.rs").as_str());
    let gone = rows.concat().into_iter().filter(is_gone);
    faults.extend(gone.map(|layer| format!("there is no {layer}.rs")));
    Ok(faults)
}

/// The source files of a folder and of those in it: their paths below `src`, and their texts.
fn files_in(src: &Path, folder: &str) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(src.join(folder))? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let file = if folder.is_empty() { file.into_owned() } else { format!("{folder}/{file}") };
        if path.is_dir() {
            files.extend(files_in(src, &file)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push((file, fs::read_to_string(&path)?));
        }
    }
    Ok(files)
}

/// The modules that a line of a file names and must not.
fn forbidden<'a>(rows: Rows<'_>, root: &str, file: &str, line: &'a str) -> Vec<&'a str> {
    let row = |module: &str| rows.iter().position(|row| row.contains(&module));
    let row = |module: &str| row(module).unwrap_or(rows.len());
    let own = file.split(['/', '.']).next().unwrap_or_default();
    let here = row(own);
    let is_forbidden = |module: &&str| {
        let there = row(module);
        // A group hides its names from this search.
        let is_group = module.is_empty();
        is_group || there < here || (there == here && here < rows.len() && *module != own)
    };
    named(root, file, line).into_iter().filter(is_forbidden).collect()
}

/// The modules of the root that a line of a file names: after its path, or after enough `super::`.
fn named<'a>(root: &str, file: &str, line: &'a str) -> Vec<&'a str> {
    let line = if line.trim_start().starts_with("//") { "" } else { line };
    let by_path = line.match_indices(root).map(|(at, path)| &line[at + path.len()..]);
    let up = "super::".repeat(file.split('/').count());
    let by_super = line.match_indices(&up).map(|(at, path)| &line[at + path.len()..]);
    let by_super = by_super.map(|rest| rest.trim_start_matches("super::"));
    // An inline module of tests has all of its parent: `super::*`.
    let by_super = by_super.filter(|rest| !rest.starts_with(['*', '{']));
    by_path.chain(by_super).map(name).collect()
}

/// The name at the start of a text.
fn name(text: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows<'_> = &[&["main"], &["top"], &["left", "right"], &["low"]];

    #[test]
    fn a_path_to_a_layer_above_is_found() {
        for (file, line, found) in [
            ("low/file.rs", "use crate::top::serve;", "top"),
            ("low.rs", "use super::top::serve;", "top"),
            ("left/dir/file.rs", "    super::super::super::top::run();", "top"),
            ("left/file.rs", "use crate::right::page;", "right"),
            ("leaf.rs", "    let low: crate::low::Low = low;", "low"),
            ("low/file.rs", "use crate::{leaf, top};", ""),
        ] {
            assert_eq!(forbidden(ROWS, "crate::", file, line), [found], "{file}: {line}");
        }
    }

    #[test]
    fn other_paths_are_none_of_its_business() {
        for (file, line) in [
            ("top/file.rs", "use crate::low::Low;"),
            ("low/file.rs", "use crate::low::other;"),
            ("low/file.rs", "use crate::leaf::Leaf;"),
            ("low/file.rs", "use super::top;"),
            ("low.rs", "    use super::*;"),
            ("low/file.rs", "/// As [`crate::top::serve`] says."),
        ] {
            assert_eq!(forbidden(ROWS, "crate::", file, line), [""; 0], "{file}: {line}");
        }
    }

    #[test]
    fn a_module_has_layers_of_its_own() {
        let found = |line| forbidden(ROWS, "crate::disk::", "low/file.rs", line);
        assert_eq!(found("use crate::disk::top::serve;"), ["top"]);
        assert_eq!(found("use crate::top::serve;"), [""; 0]);
    }

    #[test]
    fn files_in_folders_are_read() {
        let src = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| {
            fs::write(src.path().join(file), text).expect("written");
        };
        fs::create_dir_all(src.path().join("low/dir")).expect("made");
        write("main.rs", "mod low;\nmod top;\n");
        write("low/dir/file.rs", "\nuse crate::top::serve;\n");
        write("low.rs", "");
        write("left.rs", "");
        write("right.rs", "");
        let faults = faults(src.path(), ROWS).expect("read");
        assert_eq!(faults, ["low/dir/file.rs:2: top", "there is no top.rs"]);
    }
}
