//! Exports that are there from the start: for tests, examples and benches.

use async_trait::async_trait;

use crate::export::{ClientInfo, Export, ExportInfo, Exports, OpenError};

/// A fixed set of exports; the first is the default.
#[derive(Default)]
pub struct FixedExports {
    exports: Vec<Export>,
}

impl FixedExports {
    /// Serves these exports.
    #[must_use]
    pub fn new(exports: Vec<Export>) -> Self {
        Self { exports }
    }

    fn find(&self, name: &str) -> Result<&Export, OpenError> {
        let found = match name {
            "" => self.exports.first(),
            _ => self.exports.iter().find(|export| export.info.name == name),
        };
        found.ok_or_else(|| OpenError::NotFound { name: name.to_owned() })
    }
}

#[async_trait]
impl Exports for FixedExports {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        Ok(self.exports.iter().map(|export| export.info.name.clone()).collect())
    }

    async fn describe(&self, name: &str, _client: &ClientInfo) -> Result<ExportInfo, OpenError> {
        self.find(name).map(|export| export.info.clone())
    }

    async fn open(&self, name: &str, _client: &ClientInfo) -> Result<Export, OpenError> {
        self.find(name).cloned()
    }
}
