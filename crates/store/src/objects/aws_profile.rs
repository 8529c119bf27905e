//! Reads keys from the files of AWS's tools, `~/.aws/credentials` and `~/.aws/config`.
//!
//! The client of `object_store` knows keys, web identities and roles, and none of these files. A
//! profile's keys take the place of variables of the environment. No message repeats a value of
//! the files: it may be a secret.

use crate::error::{Error, Result};
use crate::objects::url::StoreOptions;
use object_store::aws::AmazonS3ConfigKey as Key;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// The setting that names a profile.
const PROFILE: &str = "profile";
/// The profile where none is named.
const DEFAULT: &str = "default";

/// The properties of a profile in one file.
type Properties = BTreeMap<String, String>;

/// An access key.
struct AccessKey {
    id: String,
    secret: String,
    token: Option<String>,
}

/// Adds a profile's key and region to the environment, where `options` lack them.
///
/// The setting `profile` names the profile, else `AWS_PROFILE` does. The setting wins over keys of
/// the environment, and loses to keys in the settings.
///
/// # Errors
/// Kind `Invalid` if a key is needed, and a named profile has none, or any profile has half of one.
pub(super) fn apply(options: &StoreOptions) -> Result<StoreOptions> {
    let mut options = options.clone();
    let set = options.settings.remove(PROFILE);
    let is_set = set.is_some();
    let of_environment = || options.environment.get("AWS_PROFILE").filter(|name| !name.is_empty());
    let named = set.or_else(|| of_environment().cloned());
    let lacks_key = lacks(&options.settings, KEYS)
        && (is_set || lacks(&options.environment, KEYS))
        && lacks(&options.settings, &[Key::WebIdentityTokenFile])
        && (is_set || lacks(&options.environment, &[Key::WebIdentityTokenFile]));
    let lacks_region = lacks(&options.settings, REGIONS) && lacks(&options.environment, REGIONS);
    if !lacks_key && !lacks_region {
        return Ok(options);
    }
    let name = named.as_deref().unwrap_or(DEFAULT);
    let credentials = read(&options.environment, &CREDENTIALS, name);
    let config = read(&options.environment, &CONFIG, name);
    if lacks_key {
        let key = match access_key(&credentials, name)? {
            Some(key) => Some(key),
            None => access_key(&config, name)?,
        };
        match key {
            Some(key) => put(&mut options.environment, key),
            None if named.is_some() => return Err(keyless(name)),
            None => {}
        }
    }
    let region = credentials.get("region").or_else(|| config.get("region"));
    if let Some(region) = region.filter(|_| lacks_region) {
        options.environment.insert("AWS_REGION".to_owned(), region.clone());
    }
    Ok(options)
}

const KEYS: &[Key] = &[Key::AccessKeyId, Key::SecretAccessKey];
const REGIONS: &[Key] = &[Key::Region, Key::DefaultRegion];

fn key_of(name: &str) -> Option<Key> {
    name.to_ascii_lowercase().parse().ok()
}

/// True if none of `keys` is among these settings or variables.
fn lacks(given: &BTreeMap<String, String>, keys: &[Key]) -> bool {
    !given.keys().filter_map(|name| key_of(name)).any(|key| keys.contains(&key))
}

/// Puts a key in the place of the environment's. A token belongs to its key alone.
fn put(environment: &mut BTreeMap<String, String>, key: AccessKey) {
    let is_of_key = |key: &Key| KEYS.contains(key) || *key == Key::Token;
    environment.retain(|name, _| !key_of(name).as_ref().is_some_and(is_of_key));
    environment.insert("AWS_ACCESS_KEY_ID".to_owned(), key.id);
    environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), key.secret);
    if let Some(token) = key.token {
        environment.insert("AWS_SESSION_TOKEN".to_owned(), token);
    }
}

fn keyless(name: &str) -> Error {
    Error::invalid(
        format!("the AWS profile {name:?}"),
        "it has no key: give it aws_access_key_id and aws_secret_access_key in \
         ~/.aws/credentials; Skerry signs in by no other way that a profile can name",
    )
}

fn access_key(properties: &Properties, name: &str) -> Result<Option<AccessKey>> {
    let get = |property: &str| properties.get(property).cloned();
    let lacks = |property: &str| {
        Err(Error::invalid(format!("the AWS profile {name:?}"), format!("it lacks {property}")))
    };
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            Ok(Some(AccessKey { id, secret, token: get("aws_session_token") }))
        }
        (None, None) => Ok(None),
        (None, Some(_)) => lacks("aws_access_key_id"),
        (Some(_), None) => lacks("aws_secret_access_key"),
    }
}

/// One of the two files.
struct File {
    /// The variable that names it.
    variable: &'static str,
    /// Its place below the home directory.
    place: &'static str,
    /// The word before a profile's name in its sections, which `default` may lack.
    word: &'static str,
}

const CREDENTIALS: File =
    File { variable: "AWS_SHARED_CREDENTIALS_FILE", place: ".aws/credentials", word: "" };
const CONFIG: File = File { variable: "AWS_CONFIG_FILE", place: ".aws/config", word: "profile " };

/// Reads a profile's properties. A file that can't be read has none.
fn read(environment: &BTreeMap<String, String>, file: &File, name: &str) -> Properties {
    let variable = environment.get(file.variable).filter(|path| !path.is_empty()).cloned();
    let path = match (variable, environment.get("HOME")) {
        (Some(path), _) => path,
        (None, Some(home)) => format!("{home}/{}", file.place),
        (None, None) => return Properties::new(),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text, file.word, name),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path, %error, "can't read this file of AWS keys: going on without");
            }
            Properties::new()
        }
    }
}

/// The properties of the profile `name` in a file's text.
fn parse(text: &str, word: &str, name: &str) -> Properties {
    let mut properties = Properties::new();
    let (mut is_meant, mut is_nested) = (false, false);
    for line in text.lines() {
        let is_indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) || (is_indented && is_nested) {
            continue;
        }
        if let Some((section, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            is_meant = is_section(section.trim(), word, name);
            is_nested = false;
        } else if let Some((property, value)) = line.split_once('=') {
            let value = without_comment(value);
            is_nested = value.is_empty();
            if is_meant && !is_nested {
                properties.insert(property.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    properties
}

fn is_section(section: &str, word: &str, name: &str) -> bool {
    let profile = section.strip_prefix(word).unwrap_or("").trim();
    profile.trim_matches('"') == name || (name == DEFAULT && section == DEFAULT)
}

fn without_comment(value: &str) -> &str {
    let end = value.find(" #").or_else(|| value.find(" ;")).unwrap_or(value.len());
    value.get(..end).unwrap_or(value).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const CREDENTIALS_TEXT: &str = "\
# keys
[default]
aws_access_key_id = ID1
aws_secret_access_key=S/1+=  # of the host
[ work ]
  aws_access_key_id = ID2
  aws_secret_access_key = SECRET2
  aws_session_token = TOKEN2
[half]
aws_secret_access_key = SECRET3
";
    const CONFIG_TEXT: &str = "\
[default]
region = eu-central-1
s3 =
  region = not-this-one
[profile work]
region = eu-west-1
[work]
region = not-this-one
[profile \"of config\"]
aws_access_key_id = ID4
aws_secret_access_key = SECRET4
[profile sso]
sso_session = x
";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Options with a home directory that has both files.
    fn at_home(
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> (tempfile::TempDir, StoreOptions) {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join(".aws")).expect("made");
        for (file, text) in [("credentials", CREDENTIALS_TEXT), ("config", CONFIG_TEXT)] {
            std::fs::write(home.path().join(".aws").join(file), text).expect("written");
        }
        let mut environment = map(environment);
        environment.insert("HOME".to_owned(), home.path().to_str().expect("UTF-8").to_owned());
        let options =
            StoreOptions { settings: map(settings), environment, ..StoreOptions::default() };
        (home, options)
    }

    /// The variables that apply after the profile, without the home directory.
    fn applied(
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let (_home, options) = at_home(settings, environment);
        let mut applied = apply(&options).expect("applies");
        assert!(!applied.settings.contains_key(PROFILE));
        applied.environment.remove("HOME");
        applied.environment
    }

    fn keys<'a>(id: &'a str, secret: &'a str, region: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_REGION", region)]
    }

    #[test]
    fn a_profile_gives_its_key_and_region() {
        assert_eq!(applied(&[], &[]), map(&keys("ID1", "S/1+=", "eu-central-1")));
        let mut work = keys("ID2", "SECRET2", "eu-west-1");
        work.push(("AWS_SESSION_TOKEN", "TOKEN2"));
        assert_eq!(applied(&[("profile", "work")], &[]), map(&work));
        let mut of_config = keys("ID4", "SECRET4", "x");
        of_config.retain(|(name, _)| *name != "AWS_REGION");
        assert_eq!(applied(&[("profile", "of config")], &[]), map(&of_config));
        work.push(("AWS_PROFILE", "work"));
        assert_eq!(applied(&[], &[("AWS_PROFILE", "work")]), map(&work));
    }

    #[test]
    fn keys_of_the_settings_and_the_environment_come_first() {
        let set = [("access_key_id", "A"), ("secret_access_key", "B"), ("region", "r")];
        assert_eq!(applied(&set, &[]), map(&[]));
        let environment = keys("A", "B", "r");
        assert_eq!(applied(&[], &environment), map(&environment));
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "f"), ("AWS_DEFAULT_REGION", "r")];
        assert_eq!(applied(&[], &web), map(&web));
        // A profile in the settings is meant; a token without its key is not.
        let environment = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SESSION_TOKEN", "T")];
        let expected = map(&keys("ID1", "S/1+=", "eu-central-1"));
        assert_eq!(applied(&[("profile", "default")], &environment), expected);
    }

    #[test]
    fn a_profile_without_a_key_is_refused_by_name() {
        for (name, said) in
            [("none", "has no key"), ("sso", "has no key"), ("half", "lacks aws_access_key_id")]
        {
            let (_home, options) = at_home(&[("profile", name)], &[]);
            let error = apply(&options).expect_err(name);
            let text = error.to_string();
            assert!(text.contains(said) && text.contains(name), "{text}");
            assert!(!text.contains("SECRET"), "{text}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        let set = [("access_key_id", "A"), ("secret_access_key", "B"), ("profile", "none")];
        assert_eq!(applied(&set, &[]), map(&[]), "no key is needed of it");
    }

    #[test]
    fn files_elsewhere_and_missing_ones() {
        let (home, mut options) = at_home(&[], &[]);
        let at = home.path().join("keys");
        std::fs::write(&at, "[default]\naws_access_key_id=X\naws_secret_access_key=Y\n")
            .expect("written");
        let at = at.to_str().expect("UTF-8").to_owned();
        options.environment.insert(CREDENTIALS.variable.to_owned(), at);
        let found = apply(&options).expect("applies").environment;
        assert_eq!(found.get("AWS_ACCESS_KEY_ID").map(String::as_str), Some("X"));
        let bare = StoreOptions::default();
        assert!(apply(&bare).expect("applies").environment.is_empty());
        options.environment = map(&[("HOME", "/nowhere")]);
        assert_eq!(apply(&options).expect("applies").environment.len(), 1);
    }
}
