//! Opens a store by its URL: a local directory, memory, S3, Google Cloud Storage or Azure.
//!
//! Settings come in as plain maps: nothing here reads the environment. Keys of S3 may also come
//! from the files of AWS's tools, by `objects::aws_profile`. Retries inside the store's
//! client are off, since [`crate::objects::bucket`] has the one policy. A client that is denied
//! access is replaced by one with fresh keys. Cargo features (`s3`, `gcs`, `azure`) decide which
//! clouds there are.

use crate::error::{Error, Result};
use crate::objects::direct::DirectFs;
use crate::objects::local_root::{RootDir, Rooted};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use skerry_core::names;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Options for opening a store, besides its URL.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Settings by the names of `object_store`: `endpoint`, `region`, `access_key_id`,
    /// `secret_access_key`, `allow_http`, `service_account_path`, `account_name`, … An unknown one
    /// is an error. For S3, `profile` names a profile of `~/.aws/credentials`.
    pub settings: BTreeMap<String, String>,
    /// The process's environment, or its usable part. Known names that begin with `AWS_`, `GOOGLE_`
    /// or `AZURE_` apply where `settings` lack them. `HOME` leads to the files of AWS's tools.
    pub environment: BTreeMap<String, String>,
    /// The longest time for a call. A [`crate::objects::bucket::Bucket`] times its calls itself,
    /// and needs [`crate::objects::line::SEND_TIMEOUT_MAX`]. The default, for callers that do not,
    /// is a minute.
    pub timeout_max: Option<Duration>,
}

/// An opened store.
#[derive(Debug, Clone)]
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The directory, if it is a local one.
    pub local_root: Option<RootDir>,
    /// Its address for people, without secrets.
    pub display: String,
}

/// The files that test a directory's hard links.
const LINK_PROBES: [&str; 2] = ["links-0", "links-1"];
/// EPERM, ENOSYS, EOPNOTSUPP: the errors of file systems without hard links.
const NO_LINKS: [i32; 3] = [1, 38, 95];

fn invalid(what: &str, detail: impl Into<String>) -> Error {
    Error::invalid(format!("the bucket's address {what:?}"), detail)
}

/// Opens the store at `url`: `file:///…` or a plain path (created if missing), `memory://`,
/// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
///
/// Sends nothing yet; [`crate::objects::bucket::Bucket::open`] does.
///
/// # Errors
/// Kind `Invalid` for an impossible URL or setting; `Unavailable` if a directory can't be made.
pub fn open(url: &str, options: &StoreOptions) -> Result<OpenStore> {
    if !url.contains("://") {
        refuse_half_url(url)?;
        return open_local(Path::new(url), url);
    }
    let parsed = Url::parse(url).map_err(|error| invalid(&redact(url), error.to_string()))?;
    let display = display(&parsed);
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(&display, "keys don't belong in it; give them as settings"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(&display, "it has a '?' or '#'; give settings as settings"));
    }
    match parsed.scheme() {
        "file" => {
            let path = parsed.to_file_path();
            let path = path.map_err(|()| invalid(&display, "a local path begins with file:///"))?;
            open_local(&path, &display)
        }
        "memory" => Ok(OpenStore { store: Arc::new(InMemory::new()), local_root: None, display }),
        scheme => {
            let store = cloud::renewing(scheme, &parsed, &display, options)?;
            Ok(OpenStore { store, local_root: None, display })
        }
    }
}

/// Refuses a text that looks like a URL and lacks a slash: it would become a directory of that
/// name.
fn refuse_half_url(text: &str) -> Result<()> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(()) };
    let is_scheme = scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_scheme {
        return Ok(());
    }
    let meant = match scheme {
        "file" => format!("file:///{}", rest.trim_start_matches('/')),
        _ => format!("{scheme}://{}", rest.trim_start_matches('/')),
    };
    let detail = format!("write {meant} for a URL, or ./{text} for a directory of that name");
    Err(invalid(text, detail))
}

/// Refuses a directory without hard links, by which objects are created there. Passes one that
/// can't be written: that may change, and the first creation reports it.
fn require_links(
    root: &Path,
    shown: &str,
    link: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
) -> Result<()> {
    let dir = root.join(names::PROBE);
    let (file, other) = (dir.join(LINK_PROBES[0]), dir.join(LINK_PROBES[1]));
    if std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, "")).is_err() {
        return Ok(());
    }
    let linked = link(&file, &other);
    // Left-overs do no harm: they stand in the probe's place.
    let _ = std::fs::remove_file(&other);
    let _ = std::fs::remove_file(&file);
    let _ = std::fs::remove_dir(&dir);
    match linked {
        Err(error) if NO_LINKS.contains(&error.raw_os_error().unwrap_or(0)) => Err(Error::Unfit {
            place: shown.to_owned(),
            detail: "its file system has no hard links (such as exFAT, and some that are shared \
                     over a network), by which objects are created: choose a directory on \
                     another one"
                .to_owned(),
        }),
        // Another process may be doing the same.
        _ => Ok(()),
    }
}

fn open_local(path: &Path, shown: &str) -> Result<OpenStore> {
    if path.as_os_str().is_empty() {
        return Err(invalid(shown, "it is empty"));
    }
    if path.exists() && !path.is_dir() {
        return Err(invalid(shown, "there is a file at this place; give a directory"));
    }
    std::fs::create_dir_all(path).map_err(|error| Error::file("creating", path, error))?;
    let root = path.canonicalize().map_err(|error| Error::file("opening", path, error))?;
    // The directory must still be there after a power cut, and so must its name in its parent.
    if let Some(parent) = root.parent() {
        let synced = std::fs::File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(|error| Error::file("syncing", parent, error))?;
    }
    require_links(&root, shown, |from, to| std::fs::hard_link(from, to))?;
    let store = LocalFileSystem::new_with_prefix(&root)
        .map_err(|error| Error::from_store("opening", shown, &error))?
        .with_fsync(true);
    let display = format!("file://{}", root.display());
    let opened = RootDir::open(root.clone());
    let root = opened.map_err(|error| Error::file("opening", &root, error))?;
    let store = Arc::new(Rooted::new(DirectFs::new(store), root.clone()));
    Ok(OpenStore { store, local_root: Some(root), display })
}

/// The URL without anything that could be a secret.
fn display(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

/// The harmless part of a text that is no URL.
fn redact(url: &str) -> String {
    url.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://…"))
}

#[cfg(not(feature = "cloud"))]
mod cloud {
    use super::*;

    pub(super) fn renewing(
        scheme: &str,
        _url: &Url,
        display: &str,
        _options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>> {
        Err(unknown(scheme, display))
    }
}

/// The error for a scheme that is unknown, or not in this build.
fn unknown(scheme: &str, display: &str) -> Error {
    let detail = match scheme {
        "s3" => "this build has no S3; build it with the feature s3".to_owned(),
        "gs" => "this build has no Google Cloud Storage; build it with the feature gcs".to_owned(),
        "az" => "this build has no Azure; build it with the feature azure".to_owned(),
        _ => format!(
            "{scheme}:// is not known; use a path, file://, memory://, s3://, gs:// or az://"
        ),
    };
    invalid(display, detail)
}

#[cfg(feature = "cloud")]
mod cloud {
    use super::*;
    use crate::objects::line::CALL_TIMEOUT;
    use crate::objects::renew::Renewing;
    use object_store::prefix::PrefixStore;
    use object_store::{BackoffConfig, ClientOptions, RetryConfig};

    /// Time for which the client waits for a connection; the bucket times the whole call.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    fn no_retry() -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 0,
            retry_timeout: CALL_TIMEOUT,
        }
    }

    fn client(options: &StoreOptions) -> ClientOptions {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = options.timeout_max.unwrap_or(CALL_TIMEOUT);
        ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(timeout)
    }

    /// Variables that the client prefers to a setting, or adds to it: they are meant for another
    /// store's setting.
    const BELONGS_TO: [(&str, &str); 2] =
        [("AWS_ENDPOINT_URL_S3", "endpoint"), ("AWS_SESSION_TOKEN", "access_key_id")];

    /// A setting by its name, its key and its value.
    type NamedSetting<'a, K> = (&'a str, K, &'a str);

    /// Collects the settings: the environment's known ones that the given ones do not replace, then
    /// the given ones, which must be known.
    fn settings<K: std::str::FromStr + PartialEq>(
        environment_prefix: &str,
        options: &StoreOptions,
        display: &str,
    ) -> Result<Vec<(K, String)>> {
        let parse = |name: &str| name.to_ascii_lowercase().parse::<K>().ok();
        let given = options.settings.iter().map(|(name, value)| match parse(name) {
            Some(key) => Ok((name.as_str(), key, value.as_str())),
            None => Err(invalid(
                display,
                format!("the setting {name:?} is not known for this kind of store"),
            )),
        });
        let given: Vec<NamedSetting<'_, K>> = given.collect::<Result<_>>()?;
        let is_given = |key: &K| given.iter().any(|(_, given, _)| given == key);
        // By the key: a variable may have several names.
        let is_replaced = |key: &K| {
            let to = BELONGS_TO.iter().find(|(variable, _)| parse(variable).as_ref() == Some(key));
            to.and_then(|(_, setting)| parse(setting)).is_some_and(|key| is_given(&key))
        };
        let environment = options.environment.iter().filter_map(|(name, value)| {
            let key = parse(name).filter(|_| name.starts_with(environment_prefix))?;
            (!is_given(&key) && !is_replaced(&key)).then_some((name.as_str(), key, value.as_str()))
        });
        let mut all: Vec<_> = environment.collect();
        all.extend(given);
        refuse_plain_http(&all, display)?;
        Ok(all.into_iter().map(|(_, key, value)| (key, value.to_owned())).collect())
    }

    /// Refuses an unencrypted address without `allow_http`: the client would say only "builder
    /// error".
    fn refuse_plain_http<K>(all: &[NamedSetting<'_, K>], display: &str) -> Result<()> {
        let is_allowed = all.iter().any(|(name, _, value)| {
            name.to_ascii_lowercase().ends_with("allow_http") && value.eq_ignore_ascii_case("true")
        });
        let plain = all.iter().find(|(name, _, value)| {
            name.to_ascii_lowercase().contains("endpoint") && value.starts_with("http://")
        });
        match plain {
            Some((name, _, value)) if !is_allowed => Err(invalid(
                display,
                format!(
                    "{name} is {value}, which is not encrypted: set allow_http = true beside it \
                     if that is meant"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Builders have equal methods and no common trait.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    macro_rules! build {
        ($builder:ty, $prefix:literal, $url:expr, $display:expr, $options:expr) => {{
            let mut builder = <$builder>::new()
                .with_client_options(client($options))
                .with_retry(no_retry())
                .with_url($url.to_string());
            for (key, value) in settings($prefix, $options, $display)? {
                builder = builder.with_config(key, value);
            }
            let built = builder.build();
            let store = built.map_err(|error| invalid($display, error.to_string()))?;
            prefixed(store, $url, $display)
        }};
    }

    fn prefixed(store: impl ObjectStore, url: &Url, display: &str) -> Result<Arc<dyn ObjectStore>> {
        let prefix = object_store::path::Path::from_url_path(url.path())
            .map_err(|error| invalid(display, error.to_string()))?;
        if prefix.as_ref().is_empty() {
            return Ok(Arc::new(store));
        }
        Ok(Arc::new(PrefixStore::new(store, prefix)))
    }

    /// Makes a store whose client fetches its keys again when they are no longer good.
    pub(super) fn renewing(
        scheme: &str,
        url: &Url,
        display: &str,
        options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>> {
        let (scheme, url) = (scheme.to_owned(), url.clone());
        let (display, options) = (display.to_owned(), options.clone());
        let renewing = Renewing::new(move || open(&scheme, &url, &display, &options))?;
        Ok(Arc::new(renewing))
    }

    fn open(
        scheme: &str,
        url: &Url,
        display: &str,
        options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>> {
        match scheme {
            #[cfg(feature = "s3")]
            "s3" => {
                let options = &crate::objects::aws_profile::apply(options)?;
                build!(object_store::aws::AmazonS3Builder, "AWS_", url, display, options)
            }
            #[cfg(feature = "gcs")]
            "gs" => {
                build!(
                    object_store::gcp::GoogleCloudStorageBuilder,
                    "GOOGLE_",
                    url,
                    display,
                    options
                )
            }
            #[cfg(feature = "azure")]
            "az" => {
                build!(object_store::azure::MicrosoftAzureBuilder, "AZURE_", url, display, options)
            }
            _ => Err(unknown(scheme, display)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refused(url: &str, options: &StoreOptions) -> String {
        let error = open(url, options).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
        error.to_string()
    }

    #[test]
    fn directories_are_made_and_open_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b c");
        let plain = path.to_str().expect("UTF-8");
        let url = Url::from_file_path(&path).expect("a URL").to_string();
        for address in [plain, url.as_str(), plain] {
            let opened = open(address, &StoreOptions::default()).expect("opens");
            let root = opened.local_root.expect("a directory");
            assert_eq!(root.path(), path.canonicalize().expect("it is there"));
            assert!(opened.display.starts_with("file:///"), "{}", opened.display);
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        refused(file.to_str().expect("UTF-8"), &StoreOptions::default());
        refused("", &StoreOptions::default());
    }

    #[test]
    fn a_url_that_lacks_a_slash_makes_no_directory() {
        for (url, meant) in [
            ("s3:/disks/host-1", "s3://disks/host-1"),
            ("s3:disks", "s3://disks"),
            ("file:/srv/x", "file:///srv/x"),
            ("memory:", "memory://"),
        ] {
            let text = refused(url, &StoreOptions::default());
            assert!(text.contains(meant), "{text}");
            assert!(!Path::new(url).exists(), "{url}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let odd = dir.path().join("s3:/x");
        open(odd.to_str().expect("UTF-8"), &StoreOptions::default()).expect("a path is a path");
    }

    #[test]
    fn a_directory_without_hard_links_is_refused_as_such() {
        let dir = tempfile::tempdir().expect("a directory");
        for number in [1, 95] {
            let refusal = |_: &Path, _: &Path| Err(std::io::Error::from_raw_os_error(number));
            let error = require_links(dir.path(), "/mnt/stick", refusal).expect_err("no links");
            assert!(error.to_string().contains("hard links"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        for number in [13, 17, 28] {
            let refusal = |_: &Path, _: &Path| Err(std::io::Error::from_raw_os_error(number));
            require_links(dir.path(), "/mnt/disk", refusal).expect("says nothing of links");
        }
        require_links(dir.path(), "/mnt/disk", |a, b| std::fs::hard_link(a, b)).expect("has them");
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "it left something");
    }

    #[test]
    fn secrets_are_refused_in_a_url_and_never_repeated() {
        let options = StoreOptions::default();
        for url in [
            "s3://KEY:SECRET@bucket/x",
            "s3://bucket/x?secret=SECRET",
            "s3://SECRET bad/",
            "s3://b/#SECRET",
        ] {
            assert!(!refused(url, &options).contains("SECRET"), "{url}");
        }
        assert!(refused("ftp://host/x", &options).contains("not known"));
        assert_eq!(open("memory://", &options).expect("memory").display, "memory://");
    }

    #[cfg(not(feature = "cloud"))]
    #[test]
    fn what_is_not_in_this_build_is_said() {
        for (url, feature) in [("s3://b", "s3"), ("gs://b/p", "gcs"), ("az://b", "azure")] {
            let text = refused(url, &StoreOptions::default());
            assert!(text.contains(&format!("feature {feature}")), "{text}");
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn settings_come_from_the_map_first_and_then_from_the_environment() {
        let mut options = StoreOptions::default();
        let environment = [
            ("AWS_REGION", "eu-1"),
            ("AWS_NOT_KNOWN", "x"),
            ("HOME", "/root"),
            ("AWS_ENDPOINT", "::"),
        ];
        options.environment = environment.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        options.settings.insert("endpoint".to_owned(), "http://127.0.0.1:1".to_owned());
        let text = refused("s3://bucket", &options);
        assert!(text.contains("allow_http") && text.contains("endpoint"), "{text}");
        options.settings.insert("allow_http".to_owned(), "true".to_owned());
        let opened = open("s3://bucket/some/prefix", &options).expect("opens");
        assert_eq!(opened.display, "s3://bucket/some/prefix");
        assert!(opened.store.to_string().contains("some/prefix"));
        // Meant for other programs, and of another store.
        for name in ["AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT"] {
            options.environment.insert(name.to_owned(), "http://127.0.0.1:2".to_owned());
        }
        options.settings.insert("endpoint".to_owned(), "https://127.0.0.1:1".to_owned());
        options.settings.remove("allow_http");
        let opened = open("s3://bucket", &options).expect("opens");
        assert_eq!(opened.display, "s3://bucket");
        options.settings.remove("endpoint");
        assert!(refused("s3://bucket", &options).contains("AWS_ENDPOINT_URL_S3"), "it applies");
        options.settings.insert("regoin".to_owned(), "x".to_owned());
        assert!(refused("s3://bucket", &options).contains("regoin"));
    }
}
