//! The address of an NBD export, in the forms that clients want.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

/// An export of an NBD server.
///
/// Its [`Display`](fmt::Display) is a URI that libnbd, QEMU and fio understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    /// The server.
    pub endpoint: Endpoint,
    /// The export's name: a volume, or `volume@snapshot`.
    pub export: String,
}

impl NbdUri {
    /// The export `name` on the Unix socket at `socket`.
    pub fn unix(socket: impl AsRef<Path>, name: impl Into<String>) -> NbdUri {
        NbdUri { endpoint: Endpoint::Unix(socket.as_ref().to_path_buf()), export: name.into() }
    }

    /// The export `name` on the TCP address.
    pub fn tcp(address: SocketAddr, name: impl Into<String>) -> NbdUri {
        NbdUri { endpoint: Endpoint::Tcp(address), export: name.into() }
    }

    /// Another export of this server.
    #[must_use]
    pub fn with_export(&self, name: impl Into<String>) -> NbdUri {
        NbdUri { endpoint: self.endpoint.clone(), export: name.into() }
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Unix(socket) => {
                write!(f, "nbd+unix:///{}?socket={}", self.export, socket.display())
            }
            Endpoint::Tcp(address) => write!(f, "nbd://{address}/{}", self.export),
        }
    }
}
