//! Manual pages of all commands, for packages.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// The heading of what the help says at its end, by [`Man`].
const LAST: &str = ".SH EXTRA\n";
/// Keeps its columns: examples and tables. The next heading ends that.
const LAST_IN_COLUMNS: &str = ".SH NOTES\n.nf\n";

/// Writes a page for a command and for each below it into a directory that is there.
pub(crate) fn write(command: Command, dir: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_page(&command, dir)
}

fn write_page(command: &Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page(below, dir)?;
    }
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    std::fs::write(dir.join(man.get_filename()), page.replace(LAST, LAST_IN_COLUMNS))
}
