//! The help is unchanged: `tests/help/*.txt` hold the `--help` of every command.
//!
//! Set `SKERRY_BLESS=1` to write them anew, and read the difference.

use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 44] = [
    "",
    "serve",
    "volume",
    "volume create",
    "volume list",
    "volume show",
    "volume resize",
    "volume rename",
    "volume delete",
    "volume release",
    "volume clone",
    "volume rollback",
    "snapshot",
    "snapshot create",
    "snapshot list",
    "snapshot delete",
    "snapshot diff",
    "snapshot schedule",
    "snapshot schedules",
    "import",
    "export",
    "jobs",
    "jobs enqueue",
    "jobs import",
    "jobs export",
    "jobs show",
    "jobs result",
    "jobs await",
    "jobs list",
    "jobs work",
    "jobs cancel",
    "jobs restart",
    "jobs expedite",
    "jobs delete",
    "jobs priority",
    "jobs pause",
    "jobs resume",
    "jobs stats",
    "jobs nodes",
    "jobs take-over",
    "status",
    "fsck",
    "completions",
    "help volume create",
];

fn skerry(args: &[&str]) -> (Option<i32>, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_skerry"))
        .args(args)
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .expect("the program runs");
    (ran.status.code(), String::from_utf8(ran.stdout).expect("text"))
}

#[test]
fn help_is_as_it_was() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let mut changed = Vec::new();
    for command in COMMANDS {
        let mut args: Vec<_> = command.split_whitespace().collect();
        if args.first() != Some(&"help") {
            args.push("--help");
        }
        let (code, now) = skerry(&args);
        assert_eq!(code, Some(0), "{command}");
        let path = dir.join(format!("skerry {command}").trim().replace(' ', "-") + ".txt");
        if std::env::var_os("SKERRY_BLESS").is_some() {
            std::fs::write(&path, &now).expect("the file can be written");
        }
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&now) {
            changed.push(path);
        }
    }
    assert!(changed.is_empty(), "look at these, then set SKERRY_BLESS=1: {changed:?}");
}

#[test]
fn no_command_is_left_out() {
    let (_, top) = skerry(&["--help"]);
    let listed = top.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().expect("a name");
        assert!(name == "help" || COMMANDS.contains(&name), "{name} has no help file");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(skerry(&["man", dir.path().to_str().expect("text")]).0, Some(0));
    for command in COMMANDS.iter().filter(|command| !command.starts_with("help")) {
        let name = format!("skerry {command}").trim().replace(' ', "-");
        let page = std::fs::read_to_string(dir.path().join(format!("{name}.1")));
        let page = page.expect("a page").replace("\\-", "-");
        let title = format!(".TH {name} 1");
        assert!(page.contains(&title), "{title}: {page}");
        assert!(!page.contains("\n.SH EXTRA"), "{name}: examples keep their columns");
    }
    assert_eq!(skerry(&["man", "/nowhere"]).0, Some(7));
}

#[test]
fn no_arguments_and_wrong_ones_are_usage_errors() {
    assert_eq!(skerry(&[]).0, Some(2));
    assert_eq!(skerry(&["volume", "create"]).0, Some(2));
    assert_eq!(skerry(&["--version"]).0, Some(0));
}
