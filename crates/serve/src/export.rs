//! The exports of a server: devices by name.
//!
//! No protocol's numbers appear here. Reasons for not opening are kinds, which each protocol maps
//! in one table of its own.

use std::sync::Arc;

use async_trait::async_trait;
use skerry_device::{Device, Geometry};

/// All exports of a server. A negotiation looks them up by name. The empty name means the default
/// export, if there is one.
#[async_trait]
pub trait Exports: Send + Sync + 'static {
    /// Lists the names for a client that asks.
    ///
    /// # Errors
    /// `Unavailable` if the names can't be found out now.
    async fn list(&self) -> Result<Vec<String>, OpenError>;

    /// Describes `name` for a client that only asks. Claims nothing.
    ///
    /// # Errors
    /// The reason why the export can't be served.
    async fn describe(&self, name: &str, client: &ClientInfo) -> Result<ExportInfo, OpenError>;

    /// Opens `name` for one connection, which drops the device when it ends.
    ///
    /// # Errors
    /// The reason why the export can't be served.
    async fn open(&self, name: &str, client: &ClientInfo) -> Result<Export, OpenError>;
}

/// One export, opened for one connection.
#[derive(Clone)]
pub struct Export {
    /// Its description for the client.
    pub info: ExportInfo,
    /// Its bytes.
    pub device: Arc<dyn Device>,
}

impl Export {
    /// Makes an export of a device.
    #[must_use]
    pub fn new(name: impl Into<String>, device: Arc<dyn Device>) -> Self {
        Self { info: ExportInfo::new(name, device.geometry()), device }
    }
}

/// Description of an export for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The export's own name. It differs from the requested one when that was the default export.
    pub name: String,
    /// A line for people; empty if there is nothing to say.
    pub description: String,
    /// Sizes of its device. The server itself refuses writes to a read-only one.
    pub geometry: Geometry,
}

impl ExportInfo {
    /// Describes a device of this geometry, with nothing to say to people.
    #[must_use]
    pub fn new(name: impl Into<String>, geometry: Geometry) -> Self {
        Self { name: name.into(), description: String::new(), geometry }
    }
}

/// The client that asks for an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// A number of this server that is never used again.
    pub connection: u64,
    /// The other end, for logs and for people: `unix` or an address with its port.
    pub peer: String,
}

/// Says why an export can't be opened. The text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such export.
    #[error("there is no export '{name}'; list the exports to see which there are")]
    NotFound {
        /// The requested name.
        name: String,
    },
    /// Another client has it.
    #[error("export '{name}' is in use by {holder}")]
    Busy {
        /// The export's name.
        name: String,
        /// The client that has it.
        holder: String,
    },
    /// This client may not open the export.
    #[error("{0}")]
    Denied(String),
    /// The export can't be served now; trying later makes sense.
    #[error("{0}")]
    Unavailable(String),
}
