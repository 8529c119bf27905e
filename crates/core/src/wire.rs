//! Reading and writing little-endian fields, checksums, and the one error of all formats.

use bytes::{BufMut, Bytes, BytesMut};

/// Says why bytes are not a valid object. The reader of an object adds its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("{what} is cut short")]
    Truncated {
        /// The expected object.
        what: &'static str,
    },
    /// The bytes are something else.
    #[error("this is not a {what}")]
    BadMagic {
        /// The expected object.
        what: &'static str,
    },
    /// The bytes have changed since they were written.
    #[error("{what} is damaged: its checksum does not match")]
    BadChecksum {
        /// The expected object.
        what: &'static str,
    },
    /// A later Skerry wrote this.
    #[error("{what} was written by a newer Skerry (format {version}); upgrade this one")]
    Newer {
        /// The expected object.
        what: &'static str,
        /// The unknown version or tag.
        version: u32,
    },
    /// The checksum is right and the content makes no sense.
    #[error("{what} is invalid: {detail}")]
    Invalid {
        /// The expected object.
        what: &'static str,
        /// The fault.
        detail: String,
    },
}

impl FormatError {
    /// An [`FormatError::Invalid`].
    pub fn invalid(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { what, detail: detail.into() }
    }
}

/// The first 16 bytes of BLAKE3.
pub type Hash16 = [u8; 16];

/// Hashes `bytes` for a checksum or a block table.
pub fn hash16(bytes: &[u8]) -> Hash16 {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    out
}

/// A cursor over bytes that knows their kind, for its errors.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

macro_rules! read_int {
    ($($name:ident -> $int:ty),*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($int), "`.")]
        pub fn $name(&mut self) -> Result<$int, FormatError> {
            Ok(<$int>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts reading `bytes`, which should be a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Reads the next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    read_int!(u8 -> u8, u16 -> u16, u32 -> u32, u64 -> u64);

    /// Reads a 48-bit integer.
    pub fn u48(&mut self) -> Result<u64, FormatError> {
        let low: [u8; 6] = self.array()?;
        let mut full = [0; 8];
        full[..6].copy_from_slice(&low);
        Ok(u64::from_le_bytes(full))
    }

    /// Reads the rest, as text.
    pub fn text(&mut self) -> Result<String, FormatError> {
        let bytes = self.bytes(self.rest.len())?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| FormatError::invalid(self.what, "a name in it is not UTF-8"))
    }

    /// Number of bytes left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless all bytes have been read.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::invalid(self.what, format!("{} bytes too many", self.rest.len())))
    }
}

/// Writes a 48-bit integer.
pub fn put_u48(out: &mut BytesMut, value: u64) {
    out.put_slice(&value.to_le_bytes()[..6]);
}

const SECTION_CRITICAL: u16 = 1;
/// Bytes before a section's own.
pub const SECTION_HEAD: usize = 8;

/// Writes tagged sections. All that this version writes are critical.
#[derive(Debug, Default)]
pub struct SectionWriter {
    out: BytesMut,
}

impl SectionWriter {
    /// Makes an empty list of sections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section that a reader must understand.
    pub fn put(mut self, tag: u16, bytes: &[u8]) -> Self {
        self.out.put_u16_le(tag);
        self.out.put_u16_le(SECTION_CRITICAL);
        self.out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.put_slice(bytes);
        self
    }

    /// Adds a section if there is something to put in it.
    pub fn put_some(self, tag: u16, bytes: Option<impl AsRef<[u8]>>) -> Self {
        match bytes {
            Some(bytes) => self.put(tag, bytes.as_ref()),
            None => self,
        }
    }

    /// Adds a section that holds one integer.
    pub fn put_u64(self, tag: u16, value: u64) -> Self {
        self.put(tag, &value.to_le_bytes())
    }

    /// The sections' bytes.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// Sections read back, by tag.
#[derive(Debug, Clone)]
pub struct Sections<'a> {
    what: &'static str,
    list: Vec<(u16, &'a [u8])>,
}

impl<'a> Sections<'a> {
    /// Parses sections; `known` lists the tags that the reader understands.
    pub fn parse(what: &'static str, bytes: &'a [u8], known: &[u16]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(what, bytes);
        let mut list = Vec::new();
        while reader.remaining() >= SECTION_HEAD {
            let (tag, flags, len) = (reader.u16()?, reader.u16()?, reader.u32()?);
            let body = reader.bytes(len as usize)?;
            if known.contains(&tag) {
                list.push((tag, body));
            } else if flags & SECTION_CRITICAL != 0 {
                return Err(FormatError::Newer { what, version: u32::from(tag) });
            }
        }
        reader.finish()?;
        Ok(Self { what, list })
    }

    /// Gives a section, if it is there.
    pub fn get(&self, tag: u16) -> Option<&'a [u8]> {
        self.list.iter().find(|(t, _)| *t == tag).map(|(_, body)| *body)
    }

    /// Gives a reader over a section, which must be there.
    pub fn need(&self, tag: u16) -> Result<Reader<'a>, FormatError> {
        let body = self
            .get(tag)
            .ok_or_else(|| FormatError::invalid(self.what, format!("section {tag} is missing")))?;
        Ok(Reader::new(self.what, body))
    }
}
