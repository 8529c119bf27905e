//! Tests of the settings of `serve`: flags, files, and the errors of bad ones.

use clap::Parser as _;
use skerry_api::ErrorKind;
use skerry_core::seal::HOST_BYTES_MAX;

use super::*;
use crate::cli::args::{Cli, Command};
use crate::settings::Seconds;

fn nothing(_: &str) -> Option<String> {
    None
}

fn serve(args: &[&str], variable: Variable<'_>) -> Result<Settings> {
    let args = ["skerry", "serve"].iter().chain(args);
    let cli = Cli::try_parse_from(args).expect("a command line");
    let Command::Serve(flags) = cli.command else { panic!("not serve") };
    settings_of(&flags, cli.global.data, &cli.global.api, variable)
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("skerry.toml");
    std::fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("a path").to_owned();
    (dir, path)
}

#[test]
fn flags_override_the_file() {
    let (_dir, path) = file(
        "data = '/file'\n[bucket]\nurl = 'memory://'\n[nbd]\nlisten = ['unix:/a']\n\
         [log]\nenabled = '${LOG:-false}'\ncap_bytes = '${CAP}'\n[destage]\ndirty_age_s = '5'",
    );
    let variable = |name: &str| (name == "CAP").then(|| "1G".to_owned());
    let settings = serve(&["--config", &path], &variable).expect("settings");
    assert_eq!(settings.data, PathBuf::from("/file"));
    assert_eq!(settings.nbd.listen, Some(vec![Listen(Address::Unix("/a".into()))]));
    assert_eq!((settings.log.enabled, settings.log.cap_bytes(1)), (false, 1 << 30));
    assert_eq!(settings.destage.dirty_age_s, Seconds(5));

    let flags = ["--config", &path, "--nbd", "[::1]:1", "--data", "/flag", "--log", "/l"];
    let settings = serve(&flags, &variable).expect("settings");
    assert_eq!(settings.data, PathBuf::from("/flag"));
    assert_eq!(settings.nbd.listen, Some(vec![Listen(Address::Tcp("[::1]:1".into()))]));
    assert_eq!(settings.log.dir, Some("/l".into()));
    assert!(settings.log.enabled, "a log that was asked for is used");
    assert_eq!(settings.bucket.url.as_deref(), Some("memory://"));
}

#[test]
fn the_data_directory_comes_from_flag_variable_or_default() {
    let variable = |name: &str| (name == "SKERRY_DATA").then(|| "/variable".to_owned());
    let data = |args: &[&str], variable: Variable<'_>| serve(args, variable).expect("ok").data;
    assert_eq!(data(&["--data", "/flag"], &variable), PathBuf::from("/flag"));
    assert_eq!(data(&[], &variable), PathBuf::from("/variable"));
    assert_eq!(data(&[], &nothing), PathBuf::from("./skerry-data"));
}

#[test]
fn bad_settings_are_named() {
    for (text, said) in [
        ("colour = 'red'", "unknown field `colour`"),
        ("[log]\ncolour = 'red'", "unknown field `colour`"),
        ("[log]\ncap_bytes = -1", "a number of bytes"),
        ("[cache]\nram_bytes = 'lots'", "a number of bytes"),
        ("[destage]\ndirty_age_s = 'soon'", "a number of seconds"),
        ("[destage]\ndirty_age_s = '18446744073709551615'", "a number of seconds"),
        ("[destage]\ndirty_age_s = 9223372036854775807", "a number of seconds"),
        ("[log]\nenabled = 'maybe'", "true or false"),
        ("[nbd]\nlisten = ['nowhere']", "unix:PATH or HOST:PORT"),
        ("[bucket]\nurl = '${NOT_SET}'", "bucket: url: the variable NOT_SET is not set"),
        ("data = ", "line 1"),
    ] {
        let (_dir, path) = file(text);
        let error = serve(&["--config", &path], &nothing).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(said), "{text}: {error}");
        assert!(error.message().contains(&path), "{text}: {error}");
    }
    let named = |bytes| file(&format!("[node]\nname = '{}'", "n".repeat(bytes)));
    let (_dir, path) = named(HOST_BYTES_MAX);
    serve(&["--config", &path], &nothing).expect("the longest name");
    let (_dir, path) = named(HOST_BYTES_MAX + 1);
    let error = serve(&["--config", &path], &nothing).expect_err("a longer name");
    assert!(error.message().contains("at most 255"), "{error}");
    let error = serve(&["--config", "/no/such.toml"], &nothing).expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = serve(&["--metrics", "unix:/a"], &nothing).expect_err("a Unix socket");
    assert!(error.message().contains("HOST:PORT"), "{error}");
}
