//! The output of commands about volumes.

use serde::Serialize;
use skerry_api::v1;

use super::{exact_bytes, flush_word, lines, table};
use crate::values::{human_bytes, time};

/// Stands for a value that can't be read, for people.
const UNKNOWN: &str = "?";

/// A volume, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct VolumeDocument<'a> {
    name: &'a str,
    id: Option<&'a str>,
    state: &'static str,
    failure: Option<&'a str>,
    owner: Option<&'a str>,
    held_here: bool,
    deleted: bool,
    size_bytes: Option<u64>,
    block_size_bytes: Option<u64>,
    used_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    flush: Option<&'static str>,
    created_at: Option<String>,
    clients: u64,
    undestaged_bytes: Option<u64>,
    undestaged_age_s: Option<u64>,
    snapshots: Option<u64>,
}

impl<'a> From<&'a v1::Volume> for VolumeDocument<'a> {
    fn from(volume: &'a v1::Volume) -> Self {
        let state = State::of(volume);
        let has_state = volume.unreadable() == v1::Unreadable::Nothing;
        let has_descriptor = volume.unreadable() != v1::Unreadable::Descriptor;
        let waits = has_state && volume.undestaged_bytes > 0;
        Self {
            name: &volume.name,
            id: (!volume.id.is_empty()).then_some(&volume.id),
            state: state.word(),
            failure: volume.failure.as_deref(),
            owner: volume.owner.as_deref(),
            held_here: volume.owned_here,
            deleted: volume.deleted,
            size_bytes: has_state.then_some(volume.size_bytes),
            block_size_bytes: has_descriptor.then_some(volume.block_size_bytes),
            used_bytes: volume.used_bytes,
            stored_bytes: volume.stored_bytes,
            flush: has_descriptor.then(|| flush_word(volume.flush())),
            created_at: has_descriptor.then(|| time(volume.created_ms)),
            clients: volume.clients,
            undestaged_bytes: has_state.then_some(volume.undestaged_bytes),
            undestaged_age_s: waits.then_some(volume.undestaged_age_ms / 1000),
            snapshots: has_state.then_some(volume.snapshots),
        }
    }
}

/// The state of a volume, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State<'a> {
    /// Out of service, with the reason.
    Failed(&'a str),
    /// Deleted; its snapshots remain.
    Deleted,
    /// This node holds it.
    Serving,
    /// The node of this host holds it.
    Elsewhere(&'a str),
    /// No node holds it.
    Free,
}

impl<'a> State<'a> {
    fn of(volume: &'a v1::Volume) -> Self {
        match (&volume.failure, &volume.owner) {
            (Some(failure), _) => Self::Failed(failure),
            (None, _) if volume.deleted => Self::Deleted,
            (None, _) if volume.owned_here => Self::Serving,
            (None, Some(owner)) => Self::Elsewhere(owner),
            (None, None) => Self::Free,
        }
    }

    /// One word for programs.
    fn word(self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Deleted => "deleted",
            Self::Serving => "serving",
            Self::Elsewhere(_) => "elsewhere",
            Self::Free => "free",
        }
    }

    /// A few words for people.
    fn text(self) -> String {
        match self {
            Self::Failed(failure) => format!("failed: {failure}"),
            Self::Deleted => "deleted, its snapshots remain".to_owned(),
            Self::Serving => "held here".to_owned(),
            Self::Elsewhere(owner) => format!("held by {owner}"),
            Self::Free => "free".to_owned(),
        }
    }
}

/// A value for people, if it is known.
fn shown<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// Volumes, for people.
pub(crate) fn volume_table(volumes: &[v1::Volume]) -> String {
    if volumes.is_empty() {
        return "There are no volumes: make one with `skerry volume create NAME --size SIZE`.\n"
            .to_owned();
    }
    let rows: Vec<_> = volumes.iter().map(volume_row).collect();
    table(["NAME", "SIZE", "USED", "FLUSH", "CLIENTS", "UNDESTAGED", "SNAPSHOTS", "STATE"], &rows)
}

fn volume_row(volume: &v1::Volume) -> [String; 8] {
    let document = VolumeDocument::from(volume);
    [
        volume.name.clone(),
        shown(document.size_bytes, human_bytes),
        shown(document.used_bytes, human_bytes),
        shown(document.flush, str::to_owned),
        volume.clients.to_string(),
        shown(document.undestaged_bytes, human_bytes),
        shown(document.snapshots, |count| count.to_string()),
        State::of(volume).text(),
    ]
}

/// One volume in full, for people.
pub(crate) fn volume_lines(volume: &v1::Volume) -> String {
    let document = VolumeDocument::from(volume);
    let waiting = match (document.undestaged_bytes, document.undestaged_age_s) {
        (Some(bytes), Some(age_s)) => format!("{}, for {age_s} s", human_bytes(bytes)),
        (Some(_), None) => "nothing".to_owned(),
        (None, _) => UNKNOWN.to_owned(),
    };
    lines(&[
        ("name", volume.name.clone()),
        ("id", shown(document.id, str::to_owned)),
        ("size", shown(document.size_bytes, exact_bytes)),
        ("block size", shown(document.block_size_bytes, exact_bytes)),
        ("used", shown(document.used_bytes, exact_bytes)),
        ("stored", shown(document.stored_bytes, exact_bytes)),
        ("flush", shown(document.flush, str::to_owned)),
        ("created", shown(document.created_at, |at| at)),
        ("clients", volume.clients.to_string()),
        ("undestaged", waiting),
        ("snapshots", shown(document.snapshots, |count| count.to_string())),
        ("state", State::of(volume).text()),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document(volume: &v1::Volume) -> Value {
        serde_json::to_value(VolumeDocument::from(volume)).expect("a document")
    }

    #[test]
    fn each_state_has_its_word() {
        let owner = Some("host-2".to_owned());
        let free = v1::Volume::default();
        let elsewhere = v1::Volume { owner: owner.clone(), ..free.clone() };
        let serving = v1::Volume { owned_here: true, ..elsewhere.clone() };
        let deleted = v1::Volume { deleted: true, ..free.clone() };
        let failed = v1::Volume { failure: Some("torn".to_owned()), ..serving.clone() };
        for (volume, word, text) in [
            (free, "free", "free"),
            (elsewhere, "elsewhere", "held by host-2"),
            (serving, "serving", "held here"),
            (deleted, "deleted", "deleted, its snapshots remain"),
            (failed, "failed", "failed: torn"),
        ] {
            assert_eq!(document(&volume)["state"], word);
            assert!(volume_lines(&volume).contains(&format!("state       {text}\n")), "{text}");
        }
    }

    #[test]
    fn unknown_values_are_null_and_not_invented() {
        let mut volume = v1::Volume { failure: Some("torn".to_owned()), ..v1::Volume::default() };
        let nulls = |volume: &v1::Volume| {
            let Value::Object(fields) = document(volume) else { panic!("an object") };
            let nulls = fields.into_iter().filter(|(_, value)| value.is_null());
            nulls.map(|(name, _)| name).collect::<Vec<_>>()
        };
        let of_all = ["id", "owner", "stored_bytes", "undestaged_age_s", "used_bytes"];
        assert_eq!(nulls(&volume), of_all);
        volume.set_unreadable(v1::Unreadable::State);
        let mut of_state = [&of_all[..], &["size_bytes", "snapshots", "undestaged_bytes"]].concat();
        of_state.sort_unstable();
        assert_eq!(nulls(&volume), of_state);
        volume.set_unreadable(v1::Unreadable::Descriptor);
        let mut of_both = [&of_state[..], &["block_size_bytes", "created_at", "flush"]].concat();
        of_both.sort_unstable();
        assert_eq!(nulls(&volume), of_both);
        assert!(!volume_table(&[volume.clone()]).contains("0 B"), "{}", volume_table(&[volume]));
    }

    #[test]
    fn an_age_belongs_to_bytes_that_wait() {
        let mut volume = v1::Volume { undestaged_age_ms: 2500, ..v1::Volume::default() };
        assert_eq!(document(&volume)["undestaged_age_s"], json!(null));
        volume.undestaged_bytes = 4096;
        assert_eq!(document(&volume)["undestaged_age_s"], 2);
    }
}
