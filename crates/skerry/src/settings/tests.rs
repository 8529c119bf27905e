//! Tests of settings: defaults, files, flags, and the errors of bad ones.

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

fn nothing(_: &str) -> Option<String> {
    None
}

fn serve(args: &[&str], variable: Variable<'_>) -> Result<Settings> {
    let args = ["skerry", "serve"].iter().chain(args);
    let cli = Cli::try_parse_from(args).expect("a command line");
    let Command::Serve(flags) = cli.command else { panic!("not serve") };
    Settings::of_serve(&flags, cli.global.data, &cli.global.api, variable)
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("skerry.toml");
    std::fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("a path").to_owned();
    (dir, path)
}

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(Settings::from_toml(EXAMPLE, &nothing), Ok(Settings::default()));
}

/// Once, `allow_http = true` was refused, with a message that named no remedy.
#[test]
fn options_of_a_store_are_texts_numbers_or_truths() {
    let options = "allow_http = true\nconditional_put = 'etag'\nsize = 5";
    let text = format!(
        "[bucket.options]\n{options}\n[database]\nbackend = 's3'\n[database.options]\n{options}\n\
         [database.wal]\nbackend = 's3'\n[database.wal.options]\n{options}"
    );
    let settings = Settings::from_toml(&text, &nothing).expect("settings");
    let database = settings.database.expect("there is one");
    let wal = database.wal.expect("there is one");
    for options in [&settings.bucket.options, &database.options, &wal.options] {
        assert_eq!(options["allow_http"], "true");
        assert_eq!(options["conditional_put"], "etag");
        assert_eq!(options["size"], "5");
    }
    let error = Settings::from_toml("[bucket.options]\nsizes = [1]", &nothing);
    let error = error.expect_err("a list");
    assert!(error.contains("a text, a whole number"), "{error}");
}

/// Gives the example with every setting in use.
fn whole_example() -> Settings {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") || setting.starts_with('[') => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let variable = |name: &str| Some(format!("value of {name}"));
    Settings::from_toml(&uncommented, &variable).expect("settings")
}

/// The example's bucket and its key work together.
#[cfg(feature = "s3")]
#[test]
fn the_bucket_of_the_example_is_opened() {
    use skerry_store::url::{StoreOptions, open};

    let bucket = whole_example().bucket;
    let options = StoreOptions { settings: bucket.options, ..StoreOptions::default() };
    let url = bucket.url.expect("an address");
    let opened = open(&url, &options).expect("a store");
    assert_eq!(opened.display, url);
    // The bucket needs each of these lines.
    for line in ["allow_http", "secret_access_key"] {
        let mut options = options.clone();
        assert!(options.settings.remove(line).is_some(), "{line}");
        assert!(open(&url, &options).is_err(), "without {line}");
    }
}

#[test]
fn every_line_of_the_example_is_a_setting() {
    let settings = whole_example();
    assert_eq!(settings.bucket.options["access_key_id"], "value of AWS_ACCESS_KEY_ID");
    assert_eq!(settings.log.cap_bytes, Some(ByteSize(8 << 30)));
    assert!(settings.metrics.listen.is_some());
    let database = settings.database.clone().expect("set");
    assert!(database.wal.expect("set").apply_wal_on_close && !database.slatedb.is_empty());
    assert!(!format!("{settings:?}").contains("value of"), "options are secret");
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
fn the_log_takes_a_quarter_of_what_is_free_at_most() {
    let log = LogSettings::default();
    assert_eq!(log.cap_bytes(1 << 40), 8 << 30);
    assert_eq!(log.cap_bytes(4 << 30), 1 << 30);
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
