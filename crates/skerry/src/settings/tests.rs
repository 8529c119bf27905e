//! Tests of settings: defaults, and the example of a settings file.

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
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
    use skerry_store::objects::url::{StoreOptions, open};

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
fn the_log_takes_a_quarter_of_what_is_free_at_most() {
    let log = LogSettings::default();
    assert_eq!(log.cap_bytes(1 << 40), 8 << 30);
    assert_eq!(log.cap_bytes(4 << 30), 1 << 30);
}
