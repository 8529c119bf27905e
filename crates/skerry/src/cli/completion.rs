//! Completion of names on the command line: which names a place takes, and the shells' scripts.
//!
//! The scripts hand the typed words to the hidden command `complete-names`. So one table serves
//! every shell.

use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::args::Cli;

/// Names that a place on the command line takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// `VOLUME`.
    Volumes,
    /// `VOLUME@SNAPSHOT`.
    Snapshots,
    /// Both.
    Either,
}

/// Each command's places for names: the command, the place among its values, and the names.
const PLACES: [(&str, usize, Names); 15] = [
    ("volume show", 0, Names::Volumes),
    ("volume resize", 0, Names::Volumes),
    ("volume rename", 0, Names::Volumes),
    ("volume delete", 0, Names::Volumes),
    ("volume release", 0, Names::Volumes),
    ("volume clone", 0, Names::Snapshots),
    ("volume rollback", 0, Names::Snapshots),
    ("snapshot create", 0, Names::Volumes),
    ("snapshot list", 0, Names::Volumes),
    ("snapshot delete", 0, Names::Snapshots),
    ("snapshot diff", 0, Names::Snapshots),
    ("snapshot diff", 1, Names::Snapshots),
    ("snapshot schedule", 0, Names::Volumes),
    ("import", 1, Names::Volumes),
    ("export", 0, Names::Either),
];

/// A name to complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The names that fit.
    pub(crate) names: Names,
    /// Their beginning.
    pub(crate) begin: String,
    /// The `--data` among the words.
    pub(crate) data: Option<PathBuf>,
    /// The `--api` among the words.
    pub(crate) api: Option<String>,
}

/// Tells the names that the last of these words takes. The program's name is not among the words.
pub(crate) fn wanted(words: &[String]) -> Option<Wanted> {
    let (begin, typed) = words.split_last()?;
    let mut root = Cli::command();
    root.build();
    let mut walk = Walk { at: &root, path: Vec::new(), place: 0, data: None, api: None };
    let mut typed = typed.iter().filter(|word| !word.is_empty());
    let mut has_flags = true;
    while let Some(word) = typed.next() {
        match word.strip_prefix("--").filter(|_| has_flags) {
            Some("") => has_flags = false,
            Some(flag) => walk.flag(flag, &mut typed)?,
            None if has_flags && word.starts_with('-') => {}
            None => walk.value(word),
        }
    }
    if has_flags && begin.starts_with('-') {
        return None;
    }
    let command = walk.path.join(" ");
    let place = PLACES.iter().find(|(of, at, _)| *of == command && *at == walk.place);
    let (data, api) = (walk.data, walk.api);
    place.map(|(_, _, names)| Wanted { names: *names, begin: begin.clone(), data, api })
}

/// A walk over words, from command to command.
struct Walk<'a> {
    at: &'a Command,
    path: Vec<&'a str>,
    /// Number of values of the present command so far.
    place: usize,
    data: Option<PathBuf>,
    api: Option<String>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, word: &str) {
        match self.at.find_subcommand(word) {
            Some(command) => {
                self.at = command;
                self.path.push(command.get_name());
                self.place = 0;
            }
            None => self.place += 1,
        }
    }

    /// Passes a flag, and its value. None if the value is yet to be typed.
    fn flag<'w>(&mut self, flag: &str, rest: &mut impl Iterator<Item = &'w String>) -> Option<()> {
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let takes_value =
            |arg: &&Arg| arg.get_long() == Some(name) && arg.get_action().takes_values();
        if !self.at.get_arguments().any(|arg| takes_value(&arg)) {
            return Some(());
        }
        let value = match value {
            Some(value) => value,
            None => rest.next()?.clone(),
        };
        match name {
            "data" => self.data = Some(value.into()),
            "api" => self.api = Some(value),
            _ => {}
        }
        Some(())
    }
}

/// The completion script of a shell, with names where the shell can ask for them.
pub(crate) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "skerry", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => with_zsh_names(&script),
        _ => script,
    }
}

/// Puts our function in the place of the default one for values without a flag.
fn with_zsh_names(script: &str) -> String {
    let (head, rest) = script.split_once('\n').unwrap_or((script, ""));
    let lines = rest.lines().map(|line| match line.strip_suffix(ZSH_DEFAULT) {
        Some(begin) if line.starts_with("':") => format!("{begin}{ZSH_NAMES}\n"),
        _ => format!("{line}\n"),
    });
    format!("{head}\n{ZSH}{}", lines.collect::<String>())
}

/// End of a value that completes to a file or nothing.
const ZSH_DEFAULT: &str = ":_default' \\";
/// End of a value that completes to a name.
const ZSH_NAMES: &str = ":_skerry_names' \\";

const BASH: &str = r#"
# Names of volumes and snapshots come from the node.
_skerry_and_names() {
    _skerry "$@"
    local line="${COMP_LINE:0:COMP_POINT}" word
    local -a words=() names=()
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    [[ ${#words[@]} -gt 1 ]] || return 0
    mapfile -t names < <(command "$1" complete-names -- "${words[@]:1}" 2>/dev/null)
    [[ ${#names[@]} -gt 0 ]] || return 0
    COMPREPLY=("${names[@]}")
    [[ ${names[0]} == *@ ]] && compopt -o nospace 2>/dev/null
    # The shell replaces only the part behind the last character that breaks words.
    word="${words[${#words[@]}-1]}"
    [[ $COMP_WORDBREAKS == *@* && $word == *@* ]] && COMPREPLY=("${names[@]#*@}")
    return 0
}
if ((BASH_VERSINFO[0] > 4 || BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4)); then
    complete -F _skerry_and_names -o nosort -o bashdefault -o default skerry
fi
"#;

const FISH: &str = r#"
# Names of volumes and snapshots come from the node.
function __skerry_names
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    command $program complete-names -- $words (commandline -ct) 2>/dev/null
end
complete -c skerry -a '(__skerry_names)'
"#;

const ZSH: &str = r#"
# Names of volumes and snapshots come from the node.
_skerry_names() {
    local -a typed names
    typed=("${(@s: :)${LBUFFER##*[;|&]}}")
    while [[ $#typed -gt 1 && -z $typed[1] ]]; do shift typed; done
    names=(${(f)"$(command $typed[1] complete-names -- "${(@)typed[2,-1]}" 2>/dev/null)"})
    if (( ! $#names )); then
        _default
        return
    fi
    compadd -S '' -- ${(M)names:#*@}
    compadd -- ${names:#*@}
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Option<(Names, String)> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        wanted(&words).map(|wanted| (wanted.names, wanted.begin))
    }

    #[test]
    fn places_have_their_names() {
        let volumes = |begin: &str| Some((Names::Volumes, begin.to_owned()));
        assert_eq!(names("volume show "), volumes(""));
        assert_eq!(names("volume  show d"), volumes("d"));
        assert_eq!(names("--json volume --data /x resize d"), volumes("d"));
        assert_eq!(names("volume delete --force d"), volumes("d"));
        assert_eq!(names("import /tmp/a d"), volumes("d"));
        assert_eq!(names("snapshot schedule --every 1h d"), volumes("d"));
        assert_eq!(names("snapshot diff a@b "), Some((Names::Snapshots, String::new())));
        assert_eq!(names("export -- "), Some((Names::Either, String::new())));
    }

    #[test]
    fn other_places_have_none() {
        for line in [
            "",
            "vol",
            "volume show -",
            "volume show --js",
            "volume show d ",
            "volume create ",
            "import /tm",
            "export db /tm",
            "volume show --data ",
            "jobs show ",
            "frobnicate ",
        ] {
            assert_eq!(names(line), None, "{line}");
        }
    }

    #[test]
    fn the_node_is_the_one_on_the_line() {
        let words = ["--data=/a b", "volume", "show", "--api", "h:1", ""].map(str::to_owned);
        let wanted = wanted(&words).expect("a volume");
        assert_eq!(wanted.data, Some("/a b".into()));
        assert_eq!(wanted.api.as_deref(), Some("h:1"));
    }

    /// A renamed command must not lose its completion.
    #[test]
    fn each_place_is_on_the_command_line() {
        for (path, place, _) in PLACES {
            let mut root = Cli::command();
            root.build();
            let mut words = path.split(' ');
            let command = words.try_fold(&root, |at, word| at.find_subcommand(word));
            let places = command.map(|command| command.get_positionals().count());
            assert!(places.is_some_and(|places| places > place), "{path}");
        }
    }
}
