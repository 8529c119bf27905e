//! The address of a listener: a Unix socket or a TCP address, and its text form.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a Unix socket, bytes. The system's field has 108, one of them a final zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen on or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`, with an IPv6 host in brackets.
    Tcp(String),
}

/// Says why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text has neither form.
    #[error("{text:?} is not an address: write unix:PATH or HOST:PORT, such as 127.0.0.1:4000")]
    Unreadable {
        /// The text.
        text: String,
    },
    /// The system can't have a socket at this path.
    #[error(
        "the path of the Unix socket {path} has {bytes} bytes, and the system allows 107: \
         choose a shorter directory with --data, or name another socket"
    )]
    PathTooLong {
        /// The path.
        path: String,
        /// Its length, bytes.
        bytes: usize,
    },
}

impl Address {
    /// Checks that the system can have such an address.
    pub fn check(&self) -> Result<(), AddressError> {
        let Self::Unix(path) = self else { return Ok(()) };
        let bytes = path.as_os_str().len();
        if bytes > UNIX_PATH_BYTES_MAX {
            return Err(AddressError::PathTooLong { path: path.display().to_string(), bytes });
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `unix:PATH`, `HOST:PORT` or `tcp:HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let unreadable = || AddressError::Unreadable { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(unreadable()) } else { Ok(Self::Unix(path.into())) };
        }
        let tcp = text.strip_prefix("tcp:").unwrap_or(text);
        let (host, port) = tcp.rsplit_once(':').ok_or_else(unreadable)?;
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        let bad_host = host.is_empty() || bare_ipv6 || host.contains(['/', ' ', '@']);
        if bad_host || port.parse::<u16>().is_err() {
            return Err(unreadable());
        }
        Ok(Self::Tcp(tcp.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        assert_eq!("unix:/run/a.sock".parse(), unix("/run/a.sock"));
        assert_eq!("unix:///run/a.sock".parse(), unix("/run/a.sock"));
        assert_eq!("unix:a.sock".parse(), unix("a.sock"));
        for tcp in ["127.0.0.1:1", "localhost:65535", "[::1]:10809"] {
            assert_eq!(tcp.parse(), Ok(Address::Tcp(tcp.to_owned())));
        }
        for bad in ["", "unix:", "unix://", "host", ":80", "host:65536", "::1:80", "http://h:80"] {
            let error = bad.parse::<Address>().expect_err(bad);
            assert!(error.to_string().contains("unix:PATH or HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["unix:/run/a.sock", "tcp:127.0.0.1:10809"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_with_what_to_do() {
        let at = |bytes: usize| Address::Unix("x".repeat(bytes).into());
        assert_eq!(at(107).check(), Ok(()));
        let error = at(108).check().expect_err("108 bytes");
        assert!(error.to_string().contains("--data"), "{error}");
    }
}
