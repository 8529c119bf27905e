//! Ends of a connection.

use crate::codec::{self, DeviceNumber, Reason};

/// End of a connection. Only [`Error::Codec`] of a message that this side sends leaves it open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer sent no byte for two seconds. The caller reconnects.
    #[error("lost the peer: it sent nothing for 2 s")]
    Lost,
    /// The peer did not greet in time.
    #[error("the peer sent no greeting within 5 s")]
    Late,
    /// The peer closed between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The stream ended within a frame.
    #[error("the connection was cut within a frame")]
    Cut,
    /// The stream failed.
    #[error("the connection failed: {text}")]
    Stream {
        /// Kind of the stream's error.
        kind: std::io::ErrorKind,
        /// Text of the stream's error.
        text: String,
    },
    /// A frame broke a rule.
    #[error("the protocol was broken: {0}")]
    Codec(#[from] codec::Error),
    /// The peer sent more than its window.
    #[error("the peer sent more than the window of device {}", device.0)]
    Window {
        /// The device.
        device: DeviceNumber,
    },
    /// The peer ended the connection, and said why.
    #[error("the peer ended the connection: {} ({})", .0.text, .0.kind)]
    Peer(Reason),
    /// The peer's certificate is not one that TLS accepts here.
    #[error("TLS refused the peer: {text}")]
    Tls {
        /// Text of the TLS library.
        text: String,
    },
}

/// Result of a connection's calls.
pub type Result<T> = std::result::Result<T, Error>;

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Stream { kind: error.kind(), text: error.to_string() }
    }
}

impl Error {
    /// Reason to tell the peer before this side closes, if the peer broke a rule.
    pub(super) fn reason(&self) -> Option<Reason> {
        let kind = match self {
            Self::Codec(_) => 1,
            Self::Window { .. } => 2,
            _ => return None,
        };
        Some(Reason { kind, text: self.to_string() })
    }
}
