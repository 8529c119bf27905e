//! The transcripts of the README, which newcomers copy.

use std::error::Error;
use std::path::Path;

use skerry_testkit::require;
use skerry_testkit::skip::{self, SkipReason};
use skerry_testkit::tool::Tool;

const TEST: &str = "the_program_prints_what_the_readme_says";

#[test]
fn the_program_prints_what_the_readme_says() -> Result<(), Box<dyn Error>> {
    require!(TEST, skip::have("python3"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/transcript");
    let script = script.to_str().ok_or("the path is not UTF-8")?;
    let said = Tool::new(script).arg(env!("CARGO_BIN_EXE_skerry")).run()?;
    // The script skips a block whose tools are missing.
    for line in said.lines().filter(|line| line.starts_with("SKIPPED")) {
        skip::announce(TEST, &SkipReason::new(line));
    }
    Ok(())
}
