//! Listeners: Unix sockets that only the node's own user reaches, and TCP.
//!
//! There is no authentication yet, so access to a socket is access to every volume. Unix sockets
//! therefore get their mode and group before any client can connect: those of the node's own user
//! by default. TCP defaults to loopback.

use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use skerry_api::{Address, Error, ErrorKind, Result};
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};

use crate::home::layout::Layout;
use crate::settings::{Listen, NbdSettings, Settings};
use crate::values::invalid;

/// Mode with which only the node's own user may connect.
const PRIVATE_MODE: u32 = 0o600;
/// The file with the numbers of groups.
const GROUP_FILE: &str = "/etc/group";
/// Clients that wait to be accepted: enough for all guests of a host that reconnect at once.
const BACKLOG: u32 = 1024;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A Unix socket; its file goes when this is dropped.
    Unix(UnixListener, SocketFile),
    /// TCP.
    Tcp(TcpListener, Address),
}

/// The file of a Unix socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Number of its disk, and of the file on it.
    numbers: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another node may listen there by now, if a person removed this socket.
        let is_ours = |found: &Metadata| (found.dev(), found.ino()) == self.numbers;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| is_ours(&found)) {
            // If it can't be removed, the next start finds that no process answers there.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Warns if other hosts may reach it.
    fn warn_if_exposed(&self) {
        if let Self::Tcp(listener, _) = self
            && let Ok(local) = listener.local_addr()
            && !local.ip().is_loopback()
        {
            tracing::warn!(
                %local,
                "every client of this address has every volume: there is no login"
            );
        }
    }

    /// Its address on this host.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
            Self::Tcp(_, address) => address.clone(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
            Self::Tcp(_, address) => write!(f, "{address}"),
        }
    }
}

/// Access to a Unix socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    mode: u32,
    group: Option<u32>,
}

impl Access {
    /// The node's own user alone.
    pub(crate) const PRIVATE: Self = Self { mode: PRIVATE_MODE, group: None };

    /// The access to NBD's sockets in the settings.
    fn of_nbd(settings: &NbdSettings) -> Result<Self> {
        let group = settings.socket_group.as_deref().map(group_number).transpose()?;
        Ok(Self { mode: settings.socket_mode.0, group })
    }

    /// Sets it on the socket's file, and on no file that took its place meanwhile. Gives that file.
    fn grant(self, path: &Path) -> io::Result<SocketFile> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let found = file.metadata()?;
        if !found.file_type().is_socket() {
            return Err(io::Error::other("something else was put in its place"));
        }
        // The open file, whichever file has its name by now.
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        if self.group.is_some() {
            chown(&open, None, self.group)?;
        }
        std::fs::set_permissions(&open, Permissions::from_mode(self.mode))?;
        Ok(SocketFile { path: path.to_owned(), numbers: (found.dev(), found.ino()) })
    }

    /// Warns if other users may use the socket, and can't reach it.
    fn warn_if_out_of_reach(self, path: &Path) {
        let Some(dir) = path.parent() else { return };
        let is_closed = |dir: &Path| {
            let found = std::fs::metadata(dir);
            found.is_ok_and(|found| found.permissions().mode() & 0o011 == 0)
        };
        if self.mode & 0o077 != 0 && is_closed(dir) {
            let (path, dir) = (path.display(), dir.display());
            tracing::warn!(
                "{path} is open to others, but its directory {dir} is not: listen in another"
            );
        }
    }
}

/// The number of a group of this host. Groups of a directory service go by number.
fn group_number(group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(GROUP_FILE).unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(group);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    });
    let unknown = || {
        invalid(format!("nbd.socket_group: {GROUP_FILE} has no group {group:?}; give its number"))
    };
    number.ok_or_else(unknown)
}

/// All listeners of a node.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// NBD.
    pub(crate) nbd: Vec<Listener>,
    /// The control API.
    pub(crate) api: Vec<Listener>,
    /// Prometheus.
    pub(crate) metrics: Option<Listener>,
}

impl Listeners {
    /// Binds the addresses in the settings, or the defaults.
    pub(crate) async fn bind(settings: &Settings, layout: &Layout) -> Result<Self> {
        let access = Access::of_nbd(&settings.nbd)?;
        if says_whose_sockets_without_any(&settings.nbd) {
            tracing::warn!(
                "nbd.socket_mode and nbd.socket_group do nothing: NBD listens on TCP alone, which \
                 has no such rights"
            );
        }
        let nbd = match &settings.nbd.listen {
            Some(asked) => all(asked, access).await?,
            None => vec![bind(&layout.nbd_socket(), access).await?],
        };
        let api = match &settings.api.listen {
            Some(asked) => all(asked, Access::PRIVATE).await?,
            None => vec![bind(&layout.api_socket(), Access::PRIVATE).await?],
        };
        for listener in nbd.iter().chain(&api) {
            listener.warn_if_exposed();
        }
        let metrics = match &settings.metrics.listen {
            Some(Listen(asked)) => Some(bind(asked, Access::PRIVATE).await?),
            None => None,
        };
        Ok(Self { nbd, api, metrics })
    }
}

/// True if the settings give access to Unix sockets, and there is none.
fn says_whose_sockets_without_any(nbd: &NbdSettings) -> bool {
    let is_unix = |Listen(address): &Listen| matches!(address, Address::Unix(_));
    let has_none = nbd.listen.as_ref().is_some_and(|asked| !asked.iter().any(is_unix));
    has_none && (nbd.socket_group.is_some() || nbd.socket_mode.0 != PRIVATE_MODE)
}

async fn all(asked: &[Listen], access: Access) -> Result<Vec<Listener>> {
    let mut bound = Vec::with_capacity(asked.len());
    for Listen(address) in asked {
        bound.push(bind(address, access).await?);
    }
    Ok(bound)
}

/// Listens at an address. A Unix socket gets this access.
pub(crate) async fn bind(address: &Address, access: Access) -> Result<Listener> {
    address.check().map_err(invalid)?;
    match address {
        Address::Unix(path) => bind_unix(path, access).await,
        Address::Tcp(text) => bind_tcp(address, text).await,
    }
}

async fn bind_unix(path: &Path, access: Access) -> Result<Listener> {
    let path = std::path::absolute(path).map_err(|error| no_listener(path.display(), &error))?;
    let address = Address::Unix(path.clone());
    address.check().map_err(invalid)?;
    remove_stale(&path).await?;
    let listening = listen_for(&path, access).map_err(|error| no_listener(&address, &error))?;
    access.warn_if_out_of_reach(&path);
    Ok(listening)
}

/// Listens at a path. Connecting is refused until `listen`, and by then the file has its access.
fn listen_for(path: &Path, access: Access) -> io::Result<Listener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = access.grant(path)?;
    Ok(Listener::Unix(socket.listen(BACKLOG)?, file))
}

/// Removes the socket that a killed process left behind; leaves everything else alone.
async fn remove_stale(path: &Path) -> Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(no_listener(format!("unix:{shown}"), &error)),
        Ok(found) if !found.file_type().is_socket() => {
            let message =
                format!("{shown} exists and is no socket: remove it, or listen elsewhere");
            return Err(Error::new(ErrorKind::Exists, message));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let removed = std::fs::remove_file(path);
            removed.map_err(|error| no_listener(format!("unix:{shown}"), &error))
        }
        Err(error) => Err(no_listener(format!("unix:{shown}"), &error)),
        Ok(_) => {
            let message = format!("another process uses unix:{shown}: choose another address");
            Err(Error::new(ErrorKind::InUse, message))
        }
    }
}

async fn bind_tcp(address: &Address, text: &str) -> Result<Listener> {
    let listener = TcpListener::bind(text).await.map_err(|error| no_listener(address, &error))?;
    let local = listener.local_addr().map_err(|error| no_listener(address, &error))?;
    Ok(Listener::Tcp(listener, Address::Tcp(local.to_string())))
}

fn no_listener(address: impl fmt::Display, error: &io::Error) -> Error {
    let (kind, what_to_do) = match error.kind() {
        io::ErrorKind::AddrInUse => (ErrorKind::InUse, ": choose another address"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Unavailable, ": choose a place that is open to this user")
        }
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("nothing can listen at {address}: {error}{what_to_do}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SocketMode;

    fn socket(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("a.sock")
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = socket(&dir);
        let listener = bind(&Address::Unix(path.clone()), Access::PRIVATE).await.expect("bound");
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE_MODE);
        drop(listener);
        assert!(!path.exists());
    }

    /// A group that this user may give to a file; for root, another than its own.
    fn some_group(dir: &tempfile::TempDir) -> u32 {
        let found = std::fs::metadata(dir.path()).expect("there");
        if found.uid() == 0 { 1 } else { found.gid() }
    }

    #[tokio::test]
    async fn mode_and_group_are_as_the_settings_say() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = socket(&dir);
        let group = some_group(&dir);
        let nbd = NbdSettings {
            listen: Some(vec![Listen(Address::Unix(path.clone()))]),
            socket_mode: SocketMode(0o660),
            socket_group: Some(group.to_string()),
            ..NbdSettings::default()
        };
        let settings = Settings { nbd, ..Settings::default() };
        let layout = Layout::new(dir.path()).expect("a layout");
        let bound = Listeners::bind(&settings, &layout).await.expect("bound");
        let found = std::fs::metadata(&path).expect("there");
        assert_eq!((found.mode() & 0o777, found.gid()), (0o660, group));
        let api = std::fs::metadata(dir.path().join("api.sock")).expect("there");
        assert_eq!(api.mode() & 0o777, PRIVATE_MODE, "commands are not everybody's");
        drop(bound);
    }

    #[test]
    fn rights_of_sockets_that_are_not_there_are_noticed() {
        let tcp = || Listen(Address::Tcp("127.0.0.1:0".to_owned()));
        let unix = || Listen(Address::Unix("/x".into()));
        let is_idle = |listen: Option<Vec<Listen>>, mode: u32, group: Option<&str>| {
            let (socket_mode, socket_group) = (SocketMode(mode), group.map(str::to_owned));
            says_whose_sockets_without_any(&NbdSettings {
                listen,
                socket_mode,
                socket_group,
                ..NbdSettings::default()
            })
        };
        assert!(is_idle(Some(vec![tcp()]), 0o660, None));
        assert!(is_idle(Some(vec![tcp()]), 0o600, Some("0")));
        assert!(!is_idle(Some(vec![tcp()]), 0o600, None), "the defaults say nothing");
        assert!(!is_idle(Some(vec![tcp(), unix()]), 0o660, Some("0")));
        assert!(!is_idle(None, 0o660, Some("0")), "by default there is one");
    }

    #[test]
    fn groups_go_by_name_or_number() {
        assert_eq!(group_number("root").expect("everywhere"), 0);
        assert_eq!(group_number("4321").expect("a number"), 4321);
        let error = group_number("no such group").expect_err("unknown");
        assert!(error.message().contains("socket_group"), "{error}");
    }

    /// A user with write access to the directory may put another file in the socket's place.
    #[tokio::test]
    async fn rights_are_given_to_the_socket_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, file) = (socket(&dir), dir.path().join("file"));
        std::fs::write(&file, "precious").expect("a file");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("set");
        std::os::unix::fs::symlink(&file, &path).expect("a link");
        let open = Access { mode: 0o666, group: None };
        assert!(open.grant(&path).is_err() && open.grant(&file).is_err());
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_socket_of_another_stays_when_its_listener_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let address = Address::Unix(socket(&dir));
        let first = bind(&address, Access::PRIVATE).await.expect("bound");
        std::fs::rename(socket(&dir), dir.path().join("b.sock")).expect("moved");
        let second = bind(&address, Access::PRIVATE).await.expect("bound");
        drop(first);
        assert!(socket(&dir).exists());
        drop(second);
        assert!(!socket(&dir).exists());
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_nobody_answers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = socket(&dir);
        let address = Address::Unix(path.clone());
        let living = bind(&address, Access::PRIVATE).await.expect("bound");
        let error = bind(&address, Access::PRIVATE).await.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::InUse);
        drop(living);
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
        assert!(path.exists());
        drop(bind(&address, Access::PRIVATE).await.expect("replaced"));
        std::fs::write(&path, "precious").expect("a file");
        assert_eq!(
            bind(&address, Access::PRIVATE).await.expect_err("a file").kind(),
            ErrorKind::Exists
        );
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }

    /// Once, every local user could use every disk: TCP has no file permissions.
    #[tokio::test]
    async fn a_node_listens_on_its_own_sockets_alone_unless_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let bound = Listeners::bind(&Settings::default(), &layout).await.expect("listens");
        let is_own = |listener: &Listener| matches!(listener, Listener::Unix(..));
        assert!(bound.nbd.iter().chain(&bound.api).all(is_own), "{bound:?}");
        assert_eq!((bound.nbd.len(), bound.api.len(), bound.metrics.is_some()), (1, 1, false));
    }

    #[tokio::test]
    async fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
        let holder =
            bind(&Address::Tcp("127.0.0.1:0".to_owned()), Access::PRIVATE).await.expect("bound");
        let Listener::Tcp(_, address) = &holder else { panic!("not TCP") };
        assert_eq!(
            bind(address, Access::PRIVATE).await.expect_err("taken").kind(),
            ErrorKind::InUse
        );
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_what_to_do() {
        let path = PathBuf::from("/").join("x".repeat(120));
        let error = bind(&Address::Unix(path), Access::PRIVATE).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("--data"), "{error}");
    }
}
