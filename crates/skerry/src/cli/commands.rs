//! The commands: each asks a node for one thing and prints the answer.

mod export;
mod import;
mod jobs;
mod names;
mod node;
mod schedule;
mod snapshot;
mod volume;
mod work;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use skerry_api::{Address, Client, Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::{Cli, Command, Global, ServeArgs};
use crate::cli::completion;
use crate::cli::output::Output;
use crate::cli::overrides::settings_of;
use crate::daemon::announcer::Announcer;
use crate::daemon::log_lines::{LAST_LINES_TIME_MAX, Logging};
use crate::exit::{self, Form};
use crate::home::layout::Layout;
use crate::settings::{API_VARIABLE, DATA_DEFAULT, DATA_VARIABLE, Variable};
use crate::values::invalid;

/// Runs the program with its arguments and environment. Gives its exit code.
pub(crate) fn main(
    args: impl IntoIterator<Item = OsString>,
    variable: Variable<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let args: Vec<_> = args.into_iter().collect();
    let asked = Form::of(asks_for_json(&args));
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return exit::report_usage(&error, asked, err),
    };
    let form = Form::of(cli.global.json);
    run(cli, variable, out).unwrap_or_else(|error| exit::report(&error, form, err))
}

/// True if `--json` is among the flags of a command line that can't be parsed.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Runs a command. Gives its exit code, or an error that is not printed yet.
fn run(cli: Cli, variable: Variable<'_>, out: &mut dyn Write) -> Result<u8> {
    let Cli { global, command } = cli;
    let done = match command {
        Command::Serve(flags) => return serve(&flags, global, variable, out),
        Command::Completions { shell } => completions(shell, out),
        Command::Man { dir } => man(&dir),
        Command::CompleteNames { words } => {
            // A shell shows nothing of what goes wrong here.
            let _ = complete_names(&words, global, variable, out);
            Ok(())
        }
        command => {
            let output = Output { json: global.json, out };
            let context = Context { address: address(&global, variable)?, output };
            with_runtime(ask(context, command))
        }
    };
    done.map(|()| exit::DONE)
}

/// Carries out what asks a node.
fn with_runtime(asking: impl Future<Output = Result<()>>) -> Result<()> {
    // The command may wait for the reader of its output. The connection goes on meanwhile.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().map_err(no_runtime)?;
    let asked = runtime.block_on(asking);
    // A thread may wait for a reader that stalls.
    runtime.shutdown_background();
    asked
}

/// Prints names for a shell, of the node that the typed words mean.
fn complete_names(
    words: &[String],
    mut global: Global,
    variable: Variable<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(mut wanted) = completion::wanted(words) else { return Ok(()) };
    global.data = wanted.data.take().or(global.data);
    if let Some(api) = wanted.api.take() {
        global.api = vec![api.parse().map_err(invalid)?];
    }
    let output = Output { json: global.json, out };
    let mut context = Context { address: address(&global, variable)?, output };
    with_runtime(names::complete(&mut context, &wanted))
}

/// Runs a node. Its last error is its last log line, so that a stalled reader keeps no node alive.
fn serve(
    flags: &ServeArgs,
    global: Global,
    variable: Variable<'_>,
    out: &mut dyn Write,
) -> Result<u8> {
    let form = Form::of(global.json);
    let settings = settings_of(flags, global.data, &global.api, variable)?;
    let logging = Logging::start(variable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(no_runtime)?;
    let announcer = &mut Announcer::new(out, variable);
    let served =
        runtime.block_on(crate::daemon::serve::main(settings, &logging.lines(), announcer));
    let Err(error) = served else { return Ok(exit::DONE) };
    logging.lines().finish_with(Some(exit::line(&error, form)), LAST_LINES_TIME_MAX);
    Ok(exit::code(error.kind()))
}

/// Address and output of a command that asks a node.
pub(crate) struct Context<'a> {
    address: Address,
    output: Output<'a>,
}

impl Context<'_> {
    /// Connects to the node.
    async fn client(&self) -> Result<Client> {
        Client::connect(&self.address).await
    }
}

/// Asks the node.
pub(crate) async fn ask(mut context: Context<'_>, command: Command) -> Result<()> {
    let context = &mut context;
    match command {
        Command::Volume(command) => volume::run(context, command).await,
        Command::Snapshot(command) => snapshot::run(context, command).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Export(args) => export::run(context, args).await,
        Command::Jobs(command) => jobs::run(context, command).await,
        Command::Status => node::status(context).await,
        Command::Fsck => node::fsck(context).await,
        Command::Serve(_)
        | Command::Completions { .. }
        | Command::CompleteNames { .. }
        | Command::Man { .. } => Err(invalid("no node is asked for this")),
    }
}

/// The node's address: from a flag, or the environment, or the data directory.
fn address(global: &Global, variable: Variable<'_>) -> Result<Address> {
    match global.api.as_slice() {
        [] => {}
        [one] => return Ok(one.clone()),
        _ => return Err(invalid("--api was given more than once: one node can be asked")),
    }
    let data = global.data.clone();
    if let (None, Some(api)) = (&data, variable(API_VARIABLE)) {
        return api.parse().map_err(|error| invalid(format!("in {API_VARIABLE}: {error}")));
    }
    let data = data.or_else(|| variable(DATA_VARIABLE).map(PathBuf::from));
    Ok(Layout::new(&data.unwrap_or_else(|| DATA_DEFAULT.into()))?.api_socket())
}

/// Returns when a signal asks the command to end, so that it can clear up first.
async fn interruption() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> Result<()> {
    // A reader that has gone needs no completions.
    let _ = out.write_all(completion::script(shell).as_bytes());
    Ok(())
}

/// Writes the manual pages of all commands into a directory that is there.
fn man(dir: &Path) -> Result<()> {
    crate::cli::man::write(Cli::command(), dir).map_err(|error| {
        let message = format!("no manual pages can be written to {}: {error}", dir.display());
        Error::new(ErrorKind::Unavailable, message)
    })
}

fn no_runtime(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the system gives no threads: {error}"))
}
