//! All messages of a version.

use bytes::Bytes;

use super::{
    Accepted, DEVICES_MAX, EXTENT_BYTES_MAX, EXTENTS_MAX, Epoch, Error, Extent, Generation, Head,
    Hello, Kind, Named, Offer, Pieces, Range, Result, Stamped, fields::Fields,
};

/// Longest text of a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Reason of a refusal or an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Number of the reason; the caller's to define.
    pub kind: u16,
    /// Text for people, of at most [`TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

/// A message. `docs/transfer.md` says who sends it when.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields have the types that say what they are")]
pub enum Message {
    /// See [`Kind::Hello`].
    Hello(Hello),
    /// See [`Kind::Error`].
    Error(Reason),
    /// See [`Kind::KeepAlive`].
    KeepAlive,
    /// See [`Kind::Offer`].
    Offer(Offer),
    /// See [`Kind::Accept`].
    Accept(Vec<Accepted>),
    /// See [`Kind::Refuse`].
    Refuse(Reason),
    /// See [`Kind::Custom`].
    Custom { key: u64, value: Bytes },
    /// See [`Kind::CustomTaken`].
    CustomTaken { key: u64 },
    /// See [`Kind::Data`].
    Data(Vec<Extent>),
    /// See [`Kind::Zeros`].
    Zeros(Vec<Stamped>),
    /// See [`Kind::Stale`].
    Stale(Vec<Stamped>),
    /// See [`Kind::Wanted`].
    Wanted(Vec<Range>),
    /// See [`Kind::Have`].
    Have { question: u64, extents: Vec<Named> },
    /// See [`Kind::Lacking`]. Bit `i % 8` of byte `i / 8` is that of the `i`-th extent.
    Lacking { question: u64, bits: Bytes },
    /// See [`Kind::Window`]. `urgent` means the window of the demand lane.
    Window { bytes: u64, urgent: bool },
    /// See [`Kind::Got`].
    Got(Generation),
    /// See [`Kind::Pause`].
    Pause(Epoch),
    /// See [`Kind::Final`].
    Final { epoch: Epoch, highest: Generation, bytes: u64 },
    /// See [`Kind::Verified`].
    Verified(Generation),
    /// See [`Kind::Authority`].
    Authority(Epoch),
    /// See [`Kind::Owned`].
    Owned(Epoch),
    /// See [`Kind::Return`].
    Return(Epoch),
    /// See [`Kind::Returned`].
    Returned(Epoch),
    /// See [`Kind::Kept`].
    Kept(Epoch),
    /// See [`Kind::Complete`].
    Complete(Epoch),
    /// See [`Kind::Abort`].
    Abort(Reason),
}

impl Message {
    /// Kind of the message.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Error(_) => Kind::Error,
            Self::KeepAlive => Kind::KeepAlive,
            Self::Offer(_) => Kind::Offer,
            Self::Accept(_) => Kind::Accept,
            Self::Refuse(_) => Kind::Refuse,
            Self::Custom { .. } => Kind::Custom,
            Self::CustomTaken { .. } => Kind::CustomTaken,
            Self::Data(_) => Kind::Data,
            Self::Zeros(_) => Kind::Zeros,
            Self::Stale(_) => Kind::Stale,
            Self::Wanted(_) => Kind::Wanted,
            Self::Have { .. } => Kind::Have,
            Self::Lacking { .. } => Kind::Lacking,
            Self::Window { .. } => Kind::Window,
            Self::Got(_) => Kind::Got,
            Self::Pause(_) => Kind::Pause,
            Self::Final { .. } => Kind::Final,
            Self::Verified(_) => Kind::Verified,
            Self::Authority(_) => Kind::Authority,
            Self::Owned(_) => Kind::Owned,
            Self::Return(_) => Kind::Return,
            Self::Returned(_) => Kind::Returned,
            Self::Kept(_) => Kind::Kept,
            Self::Complete(_) => Kind::Complete,
            Self::Abort(_) => Kind::Abort,
        }
    }

    /// Length of the payload, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Hello(_) => Hello::BYTES,
            Self::KeepAlive => 0,
            Self::Error(reason) | Self::Refuse(reason) | Self::Abort(reason) => {
                2 + reason.text.len()
            }
            Self::Offer(offer) => offer.bytes(),
            Self::Accept(list) => list.len() * Accepted::BYTES,
            Self::Custom { value, .. } => 8 + value.len(),
            Self::Data(list) => {
                list.iter().map(|extent| Extent::FIELD_BYTES + extent.stored.len()).sum()
            }
            Self::Zeros(list) | Self::Stale(list) => list.len() * Stamped::BYTES,
            Self::Wanted(list) => list.len() * Range::BYTES,
            Self::Have { extents, .. } => 8 + extents.len() * Named::BYTES,
            Self::Lacking { bits, .. } => 8 + bits.len(),
            Self::Final { .. } => 24,
            Self::Window { .. } => 9,
            Self::CustomTaken { .. }
            | Self::Got(_)
            | Self::Pause(_)
            | Self::Verified(_)
            | Self::Authority(_)
            | Self::Owned(_)
            | Self::Return(_)
            | Self::Returned(_)
            | Self::Kept(_)
            | Self::Complete(_) => 8,
        }
    }

    /// Reads the payload of a frame whose head is checked. Shares its bytes.
    ///
    /// # Errors
    ///
    /// Names the first rule that the payload breaks.
    pub fn decode(kind: Kind, payload: Bytes) -> Result<Self> {
        let mut fields = Fields::new(kind, payload);
        let message = match kind.number() {
            0..32 => Self::read_session(kind, &mut fields)?,
            32..48 => Self::read_blocks(kind, &mut fields)?,
            _ => Self::read_hand_over(kind, &mut fields)?,
        };
        fields.end()?;
        Ok(message)
    }

    fn read_session(kind: Kind, fields: &mut Fields) -> Result<Self> {
        Ok(match kind {
            Kind::Hello => Self::Hello(Hello::read(fields)?),
            Kind::Error => Self::Error(Reason::read(fields)?),
            Kind::Offer => Self::Offer(Offer::read(fields)?),
            Kind::Accept => {
                Self::Accept(fields.list(Accepted::BYTES, DEVICES_MAX, Accepted::read)?)
            }
            Kind::Refuse => Self::Refuse(Reason::read(fields)?),
            Kind::Custom => Self::Custom { key: fields.u64()?, value: fields.rest() },
            Kind::CustomTaken => Self::CustomTaken { key: fields.u64()? },
            _ => Self::KeepAlive,
        })
    }

    fn read_blocks(kind: Kind, fields: &mut Fields) -> Result<Self> {
        Ok(match kind {
            Kind::Data => {
                let mut left = EXTENT_BYTES_MAX;
                let read = |fields: &mut Fields| Extent::read(fields, &mut left);
                Self::Data(fields.list(Extent::FIELD_BYTES, EXTENTS_MAX, read)?)
            }
            Kind::Zeros => Self::Zeros(fields.list(Stamped::BYTES, EXTENTS_MAX, Stamped::read)?),
            Kind::Stale => Self::Stale(fields.list(Stamped::BYTES, EXTENTS_MAX, Stamped::read)?),
            Kind::Wanted => Self::Wanted(fields.list(Range::BYTES, EXTENTS_MAX, Range::read)?),
            Kind::Have => Self::Have {
                question: fields.u64()?,
                extents: fields.list(Named::BYTES, EXTENTS_MAX, Named::read)?,
            },
            Kind::Lacking => {
                let (question, bits) = (fields.u64()?, fields.rest());
                if bits.is_empty() || bits.len() > EXTENTS_MAX / 8 {
                    return Err(fields.wrong_count(bits.len() * 8, EXTENTS_MAX));
                }
                Self::Lacking { question, bits }
            }
            Kind::Window => Self::Window { bytes: fields.u64()?, urgent: fields.flag("urgent")? },
            _ => Self::Got(Generation(fields.u64()?)),
        })
    }

    fn read_hand_over(kind: Kind, fields: &mut Fields) -> Result<Self> {
        if kind == Kind::Abort {
            return Ok(Self::Abort(Reason::read(fields)?));
        }
        if kind == Kind::Verified {
            return Ok(Self::Verified(Generation(fields.u64()?)));
        }
        let epoch = Epoch(fields.u64()?);
        Ok(match kind {
            Kind::Pause => Self::Pause(epoch),
            Kind::Final => {
                Self::Final { epoch, highest: Generation(fields.u64()?), bytes: fields.u64()? }
            }
            Kind::Authority => Self::Authority(epoch),
            Kind::Owned => Self::Owned(epoch),
            Kind::Return => Self::Return(epoch),
            Kind::Returned => Self::Returned(epoch),
            Kind::Kept => Self::Kept(epoch),
            _ => Self::Complete(epoch),
        })
    }

    /// Checks what a caller can get wrong and a head does not show: counts, texts, labels.
    fn check(&self) -> Result<()> {
        let kind = self.kind();
        let counted = |count: usize, limit: usize| match count {
            _ if (1..=limit).contains(&count) => Ok(()),
            _ => Err(Error::WrongCount { kind, count, limit }),
        };
        match self {
            Self::Error(reason) | Self::Refuse(reason) | Self::Abort(reason)
                if reason.text.len() > TEXT_BYTES_MAX =>
            {
                Err(Error::WrongField { kind, field: "text" })
            }
            Self::Offer(offer) => {
                let long = offer.devices.iter().any(|device| device.label.len() > 255);
                match long {
                    true => Err(Error::WrongField { kind, field: "label" }),
                    false => counted(offer.devices.len(), DEVICES_MAX),
                }
            }
            Self::Accept(list) => counted(list.len(), DEVICES_MAX),
            Self::Data(list) => counted(list.len(), EXTENTS_MAX),
            Self::Zeros(list) | Self::Stale(list) => counted(list.len(), EXTENTS_MAX),
            Self::Wanted(list) => counted(list.len(), EXTENTS_MAX),
            Self::Have { extents, .. } => counted(extents.len(), EXTENTS_MAX),
            Self::Lacking { bits, .. } => counted(bits.len(), EXTENTS_MAX / 8),
            _ => Ok(()),
        }
    }

    /// Says whether the message fits a frame of this head.
    ///
    /// # Errors
    ///
    /// Names the first rule that head or message break.
    pub fn check_frame(&self, head: &Head) -> Result<()> {
        head.check()?;
        self.check()
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// Names the first rule that the frame would break, and appends nothing.
    pub fn encode(&self, head: &Head, pieces: &mut Pieces) -> Result<()> {
        self.check_frame(head)?;
        pieces.slice(&head.encode());
        self.write(pieces);
        Ok(())
    }

    fn write(&self, pieces: &mut Pieces) {
        match self {
            Self::Hello(hello) => hello.write(pieces),
            Self::KeepAlive => {}
            Self::Error(reason) | Self::Refuse(reason) | Self::Abort(reason) => {
                reason.write(pieces);
            }
            Self::Offer(offer) => offer.write(pieces),
            Self::Accept(list) => list.iter().for_each(|device| device.write(pieces)),
            Self::Custom { key, value } => {
                pieces.u64(*key);
                pieces.bytes(value);
            }
            Self::Data(list) => list.iter().for_each(|extent| extent.write(pieces)),
            Self::Zeros(list) | Self::Stale(list) => {
                list.iter().for_each(|range| range.write(pieces));
            }
            Self::Wanted(list) => list.iter().for_each(|range| range.write(pieces)),
            Self::Have { question, extents } => {
                pieces.u64(*question);
                extents.iter().for_each(|named| named.write(pieces));
            }
            Self::Lacking { question, bits } => {
                pieces.u64(*question);
                pieces.bytes(bits);
            }
            Self::Window { bytes, urgent } => {
                pieces.u64(*bytes);
                pieces.u8(u8::from(*urgent));
            }
            Self::Final { epoch, highest, bytes } => {
                pieces.u64(epoch.0);
                pieces.u64(highest.0);
                pieces.u64(*bytes);
            }
            Self::CustomTaken { key: number }
            | Self::Got(Generation(number))
            | Self::Verified(Generation(number))
            | Self::Pause(Epoch(number))
            | Self::Authority(Epoch(number))
            | Self::Owned(Epoch(number))
            | Self::Return(Epoch(number))
            | Self::Returned(Epoch(number))
            | Self::Kept(Epoch(number))
            | Self::Complete(Epoch(number)) => pieces.u64(*number),
        }
    }
}

impl Reason {
    fn read(fields: &mut Fields) -> Result<Self> {
        let (kind, text) = (fields.u16()?, fields.rest());
        if text.len() > TEXT_BYTES_MAX {
            return Err(fields.wrong_field("text"));
        }
        let text = str::from_utf8(&text).map_err(|_| fields.wrong_field("text"))?.to_owned();
        Ok(Self { kind, text })
    }

    fn write(&self, pieces: &mut Pieces) {
        pieces.u16(self.kind);
        pieces.slice(self.text.as_bytes());
    }
}
