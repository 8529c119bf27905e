//! Progress of long work, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str =
    "{msg} [{bar:30}] {bytes} of {total_bytes} ({binary_bytes_per_sec}, {eta} left)";
const SPINNER_TEMPLATE: &str = "{spinner} {msg}, for {elapsed}";
/// Time between two looks of a spinner.
const TICK_INTERVAL: Duration = Duration::from_millis(200);

/// A bar that counts up to this number of bytes; invisible where standard error is no terminal.
pub(crate) fn bar(what: &str, total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(what.to_owned())
}

/// Shows for how long work of unknown length has run; invisible where standard error is no
/// terminal.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(SPINNER_TEMPLATE) {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(TICK_INTERVAL);
    spinner.with_message(what.to_owned())
}
