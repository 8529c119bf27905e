//! The format of a file to import, recognised by its content, since names say little.
//!
//! Only bytes that can't begin or end a disk count. A raw image is refused by mistake only if it
//! was made for that, and `--raw` accepts it all the same.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of either end of the file that are looked at.
const LOOKED_AT_BYTES: u64 = 512;

/// Place of a magic number.
enum At {
    /// Offset from the beginning, bytes.
    Start(usize),
    /// Offset in the last 512 bytes.
    Trailer(usize),
}

/// A format other than a raw image.
pub(crate) struct Format {
    /// Its usual name.
    pub(crate) name: &'static str,
    magic: &'static [(At, &'static [u8])],
    /// The command that makes a raw image of it, with `{}` for the file.
    command: &'static str,
}

impl Format {
    /// The command that makes a raw image of the file.
    pub(crate) fn command(&self, file: &Path) -> String {
        self.command.replace("{}", &quoted(&file.to_string_lossy()))
    }

    fn is(&self, start: &[u8], trailer: &[u8]) -> bool {
        self.magic.iter().all(|(at, magic)| {
            let rest = match at {
                At::Start(offset) => start.get(*offset..),
                At::Trailer(offset) => trailer.get(*offset..),
            };
            rest.is_some_and(|rest| rest.starts_with(magic))
        })
    }
}

macro_rules! formats {
    ($($name:literal: $($at:expr => $magic:literal),+; $command:literal)*) => {
        [$(Format { name: $name, magic: &[$(($at, $magic)),+], command: $command }),*]
    };
}

const FORMATS: [Format; 21] = formats! {
    "qcow2": At::Start(0) => b"QFI\xfb"; "qemu-img convert -f qcow2 -O raw {} disk.raw"
    "VMDK": At::Start(0) => b"KDMV"; "qemu-img convert -f vmdk -O raw {} disk.raw"
    "VMDK": At::Start(0) => b"COWD"; "qemu-img convert -f vmdk -O raw {} disk.raw"
    "VMDK descriptor": At::Start(0) => b"# Disk DescriptorFile";
        "qemu-img convert -f vmdk -O raw {} disk.raw"
    "VHDX": At::Start(0) => b"vhdxfile"; "qemu-img convert -f vhdx -O raw {} disk.raw"
    "VHD": At::Start(0) => b"conectix"; "qemu-img convert -f vpc -O raw {} disk.raw"
    // The cookie of the footer, and the version of its format.
    "fixed VHD": At::Trailer(0) => b"conectix", At::Trailer(12) => b"\0\x01\0\0";
        "qemu-img convert -f vpc -O raw {} disk.raw"
    "VDI": At::Start(0) => b"<<< "; "qemu-img convert -f vdi -O raw {} disk.raw"
    "VDI": At::Start(64) => b"\x7f\x10\xda\xbe"; "qemu-img convert -f vdi -O raw {} disk.raw"
    "QED": At::Start(0) => b"QED\0"; "qemu-img convert -f qed -O raw {} disk.raw"
    "DMG": At::Trailer(0) => b"koly\0\0\0\x04"; "qemu-img convert -f dmg -O raw {} disk.raw"
    "gzip": At::Start(0) => b"\x1f\x8b\x08"; "gzip -dc {} > disk.raw"
    "xz": At::Start(0) => b"\xfd7zXZ\0"; "xz -dc {} > disk.raw"
    "zstd": At::Start(0) => b"\x28\xb5\x2f\xfd"; "zstd -dc {} > disk.raw"
    // The header, and the magic number of the first block or of an empty stream's end.
    "bzip2": At::Start(0) => b"BZh", At::Start(4) => b"1AY&SY"; "bzip2 -dc {} > disk.raw"
    "bzip2": At::Start(0) => b"BZh", At::Start(4) => b"\x17\x72\x45\x38\x50\x90";
        "bzip2 -dc {} > disk.raw"
    "LZ4": At::Start(0) => b"\x04\x22\x4d\x18"; "lz4 -dc {} > disk.raw"
    "ZIP": At::Start(0) => b"PK\x03\x04"; "unzip {}"
    "7z": At::Start(0) => b"7z\xbc\xaf\x27\x1c"; "7z x {}"
    "OVA or tar": At::Start(257) => b"ustar\0"; "tar -xf {}"
    "OVA or tar": At::Start(257) => b"ustar "; "tar -xf {}"
};

/// Recognises the format of a file (or block device), if it is not that of a raw image.
pub(crate) fn recognise(file: &File) -> io::Result<Option<&'static Format>> {
    let size = (&mut &*file).seek(SeekFrom::End(0))?;
    let start = bytes_at(file, 0, size.min(LOOKED_AT_BYTES))?;
    let trailer = match size.checked_sub(LOOKED_AT_BYTES) {
        Some(at) => bytes_at(file, at, LOOKED_AT_BYTES)?,
        None => Vec::new(),
    };
    Ok(FORMATS.iter().find(|format| format.is(&start, &trailer)))
}

fn bytes_at(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%:=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
