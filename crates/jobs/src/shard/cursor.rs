//! The point where a listing goes on, bound to its query. Any other cursor is refused: a listing
//! that silently began again would show jobs twice, or for ever.

use super::reading::Query;
use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};

/// The point where a listing goes on: CRC-32C of the query and the point (4), the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Bytes);

impl Cursor {
    /// Makes the cursor of a point in a query's listing.
    pub(crate) fn seal(query: &Query, place: &[u8]) -> Self {
        let mut out = BytesMut::with_capacity(4 + place.len());
        out.put_u32_le(sum(query, place));
        out.put_slice(place);
        Self(out.freeze())
    }

    /// Gives the point.
    ///
    /// # Errors
    /// `Invalid` if it is no cursor, or one of another query.
    pub(crate) fn open(&self, query: &Query) -> Result<Bytes> {
        let found =
            self.0.split_first_chunk().map(|(sum, place)| (u32::from_le_bytes(*sum), place));
        match found {
            Some((found, place)) if found == sum(query, place) => Ok(self.0.slice(4..)),
            _ => Err(Error::invalid(
                "this is not where a listing of these jobs ended: begin anew, or ask with the same filter as before",
            )),
        }
    }
}

/// Checksum that tells a point from garbage and from a point of another query.
fn sum(query: &Query, place: &[u8]) -> u32 {
    let Query { tenant, group, state, metadata, is_prefix, limit: _ } = query;
    let (key, value) = metadata.as_ref().map_or(("", ""), |(key, value)| (key, value));
    let texts = [
        tenant.as_ref().map_or("", |tenant| tenant.as_str()),
        group.as_ref().map_or("", |group| group.as_str()),
        state.map_or("", |state| state.name()),
        key,
        value,
    ];
    // No text has a zero byte.
    let asked = texts.iter().fold(0, |sum, text| {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, text.as_bytes()), &[0])
    });
    crc32c::crc32c_append(crc32c::crc32c_append(asked, &[(*is_prefix).into()]), place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Group, Tenant};

    #[test]
    fn only_where_a_listing_ended_it_goes_on() {
        let query = Query {
            tenant: None,
            group: None,
            state: None,
            metadata: None,
            is_prefix: false,
            limit: 10,
        };
        let cursor = Cursor::seal(&query, b"place");
        assert_eq!(cursor.open(&query), Ok(Bytes::from_static(b"place")));
        let longer = Query { limit: 20, ..query.clone() };
        assert!(cursor.open(&longer).is_ok(), "pages may have any length");
        for bit in 0..cursor.0.len() * 8 {
            let mut bad = cursor.0.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor(bad.into()).open(&query).is_err(), "bit {bit}");
        }
        let name = "a";
        for other in [
            Query { tenant: Tenant::new(name).ok(), ..query.clone() },
            Query { group: Group::new(name).ok(), ..query.clone() },
            Query { metadata: Some((name.into(), String::new())), ..query.clone() },
            Query { is_prefix: true, ..query.clone() },
        ] {
            assert!(cursor.open(&other).is_err(), "{other:?}");
        }
        assert!(Cursor(Bytes::new()).open(&query).is_err());
    }
}
