//! Opens a store by its URL: a local directory, memory, S3, Google Cloud Storage or Azure.
//!
//! Settings come in as plain maps: nothing here reads the environment. Retries inside the store's
//! client are switched off, since [`crate::bucket`] has the one policy. Which clouds there are is
//! decided by cargo features (`s3`, `gcs`, `azure`).

use crate::direct::DirectFs;
use crate::error::{Error, Result};
use crate::root::{RootDir, Rooted};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use url::Url;

/// What must be known to open a store, besides its URL.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Settings by name, as `object_store` calls them: `endpoint`, `region`, `access_key_id`,
    /// `secret_access_key`, `allow_http`, `service_account_path`, `account_name`, … One that isn't known is an error.
    pub settings: BTreeMap<String, String>,
    /// The process's environment, or what of it may count: names beginning with `AWS_`, `GOOGLE_`
    /// or `AZURE_` that are known are used where `settings` say nothing.
    pub environment: BTreeMap<String, String>,
}

/// A store that has been opened.
#[derive(Debug, Clone)]
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The directory, if it is a local one.
    pub local_root: Option<RootDir>,
    /// Where it is, for people; without secrets.
    pub display: String,
}

fn invalid(what: &str, detail: impl Into<String>) -> Error {
    Error::invalid(format!("the bucket's address {what:?}"), detail)
}

/// Opens the store at `url`: `file:///…` or a plain path (made if it is missing), `memory://`,
/// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
///
/// Nothing is sent anywhere yet; [`crate::bucket::Bucket::open`] does.
///
/// # Errors
/// Kind `Invalid` for a URL or a setting that can't be, `Unavailable` if a directory can't be made.
pub fn open(url: &str, options: &StoreOptions) -> Result<OpenStore> {
    if !url.contains("://") {
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
            let store = cloud::open(scheme, &parsed, &display, options)?;
            Ok(OpenStore { store, local_root: None, display })
        }
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

/// What may be said about a text that is no URL.
fn redact(url: &str) -> String {
    url.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://…"))
}

#[cfg(not(feature = "cloud"))]
mod cloud {
    use super::*;

    pub(super) fn open(
        scheme: &str,
        _url: &Url,
        display: &str,
        _options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>> {
        Err(unknown(scheme, display))
    }
}

/// What to say about a scheme that is not known, or not in this build.
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
    use object_store::prefix::PrefixStore;
    use object_store::{BackoffConfig, ClientOptions, RetryConfig};
    use std::time::Duration;

    /// How long the client waits for a connection; the whole call is timed by the bucket.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long it waits for a whole response: as long as the bucket does.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

    fn no_retry() -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 0,
            retry_timeout: RESPONSE_TIMEOUT,
        }
    }

    fn client() -> ClientOptions {
        // An error says that there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(RESPONSE_TIMEOUT)
    }

    /// The settings that count: the environment's known ones, then the given ones, which must be known.
    fn settings<K: std::str::FromStr>(
        environment_prefix: &str,
        options: &StoreOptions,
        display: &str,
    ) -> Result<Vec<(K, String)>> {
        let mut all = Vec::new();
        for (name, value) in &options.environment {
            if name.starts_with(environment_prefix)
                && let Ok(key) = name.to_ascii_lowercase().parse()
            {
                all.push((key, value.clone()));
            }
        }
        for (name, value) in &options.settings {
            let key = name.to_ascii_lowercase().parse();
            let key = key.map_err(|_| {
                invalid(
                    display,
                    format!("the setting {name:?} is not known for this kind of store"),
                )
            })?;
            all.push((key, value.clone()));
        }
        Ok(all)
    }

    /// Builders have the same methods and no common trait.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    macro_rules! build {
        ($builder:ty, $prefix:literal, $url:expr, $display:expr, $options:expr) => {{
            let mut builder = <$builder>::new()
                .with_client_options(client())
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

    pub(super) fn open(
        scheme: &str,
        url: &Url,
        display: &str,
        options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>> {
        match scheme {
            #[cfg(feature = "s3")]
            "s3" => build!(object_store::aws::AmazonS3Builder, "AWS_", url, display, options),
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
        options.settings.insert("allow_http".to_owned(), "true".to_owned());
        let opened = open("s3://bucket/some/prefix", &options).expect("opens");
        assert_eq!(opened.display, "s3://bucket/some/prefix");
        assert!(opened.store.to_string().contains("some/prefix"));
        options.settings.insert("regoin".to_owned(), "x".to_owned());
        assert!(refused("s3://bucket", &options).contains("regoin"));
    }
}
