//! The names of snapshots that schedules take: `auto-` and the due time.

use jiff::Timestamp;
use skerry_core::name::Name;

/// Beginning of such a name.
const PREFIX: &str = "auto-";
/// The last time that has a name, milliseconds since 1970: late in the year 9999.
pub(super) const TIME_MS_MAX: u64 = 253_402_200_000_000;

/// A time in the form of names: `YYYYMMDDThhmmssZ`. Later times become [`TIME_MS_MAX`].
pub(super) fn compact(time_ms: u64) -> String {
    let ms = i64::try_from(time_ms.min(TIME_MS_MAX)).unwrap_or(0);
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The name of the snapshot for a due time.
pub(super) fn text(time_ms: u64) -> String {
    format!("{PREFIX}{}", compact(time_ms))
}

/// The due time of a snapshot, if a schedule named it; none if a person did.
pub(super) fn time_ms(name: &str) -> Option<u64> {
    let time: Timestamp = name.strip_prefix(PREFIX)?.parse().ok()?;
    let ms = u64::try_from(time.as_millisecond()).ok()?;
    // Times are read in more forms than one; schedules write only this one.
    (text(ms) == name).then_some(ms)
}

/// The snapshots that a schedule took beyond the newest `keep`, oldest first.
pub(super) fn surplus<'a>(names: impl IntoIterator<Item = &'a str>, keep: usize) -> Vec<Name> {
    let mut ours: Vec<(u64, Name)> =
        names.into_iter().filter_map(|name| Some((time_ms(name)?, name.parse().ok()?))).collect();
    ours.sort();
    ours.truncate(ours.len().saturating_sub(keep));
    ours.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_when() {
        let name = text(1_700_000_000_000);
        assert_eq!(name, "auto-20231114T221320Z");
        assert_eq!(time_ms(&name), Some(1_700_000_000_000));
        for time in [0, 1_000, 951_782_400_000, TIME_MS_MAX] {
            assert_eq!(time_ms(&text(time)), Some(time));
        }
    }

    #[test]
    fn what_people_name_is_theirs() {
        for theirs in [
            "auto",
            "auto-",
            "auto-monday",
            "20231114T221320Z",
            "Auto-20231114T221320Z",
            "auto-20231114T221320Z-2",
            "auto-20231114T221320",
            "auto-20231114t221320z",
            "auto-20231114T2213Z",
            "auto-20231114T221320.5Z",
            "auto-20231114T221320+00",
            "auto-2023-11-14T22:13:20Z",
            "auto-20231199T221320Z",
            "auto-20231114T221360Z",
            "my-auto-20231114T221320Z",
        ] {
            assert_eq!(time_ms(theirs), None, "{theirs}");
        }
    }

    #[test]
    fn the_oldest_go_and_nothing_else() {
        let texts = |names: Vec<Name>| names.iter().map(Name::to_string).collect::<Vec<_>>();
        let (a, b, c) = (text(1_000), text(2_000), text(3_000));
        let all = ["monday", &c, "auto-x", &a, "auto-20231114T221320Z-2", &b];
        assert_eq!(texts(surplus(all, 2)), [a.as_str()]);
        assert_eq!(texts(surplus(all, 1)), [a.as_str(), b.as_str()]);
        assert!(surplus(all, 3).is_empty());
        assert!(surplus(all, 1000).is_empty());
        assert!(surplus(["monday", "auto-x"], 1).is_empty());
    }
}
