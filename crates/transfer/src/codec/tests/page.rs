//! The tables of `docs/transfer.md` agree with the code.

use std::collections::BTreeMap;

use crate::codec::*;

const PAGE: &str = include_str!("../../../../../docs/transfer.md");

/// Cells of the rows whose first cell is code, such as "`Data`".
fn rows() -> Vec<Vec<&'static str>> {
    PAGE.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_page_has_the_kinds_of_the_code() {
    let page: BTreeMap<String, u8> = rows()
        .iter()
        .map(|row| (row[0].replace('`', ""), row[1].parse().expect("a number")))
        .collect();
    let code: BTreeMap<String, u8> =
        Kind::ALL.iter().map(|kind| (format!("{kind:?}"), kind.number())).collect();
    assert_eq!(page, code);
}

#[test]
fn the_page_has_the_lanes_of_the_code() {
    let mut checked = 0;
    for row in rows().iter().filter(|row| row.len() == 4) {
        let kind = Kind::from_number(row[1].parse().expect("a number")).expect("a kind");
        let lanes = Lane::ALL.into_iter().filter(|lane| kind.permits(*lane)).collect::<Vec<_>>();
        let expected: &[Lane] = match row[2] {
            "control" => &[Lane::Control],
            "demand" => &[Lane::Demand],
            "any but control" | "that of `Have`" => &[Lane::Demand, Lane::Dirty, Lane::Bulk],
            other => panic!("the page has an unknown lane {other}"),
        };
        assert_eq!(lanes, expected, "{kind:?}");
        checked += 1;
    }
    assert_eq!(checked, 8, "messages about blocks");
}

/// Sizes in parentheses, of a message whose fields all have one.
#[test]
fn the_page_has_the_lengths_of_the_code() {
    let mut checked = 0;
    for (_, message) in super::samples() {
        let kind = message.kind();
        let row = rows().into_iter().find(|row| row[1] == kind.number().to_string());
        let fields = row.and_then(|row| row.last().copied()).expect("the page has the kind");
        if ["each", "text", "up to", "bits"].iter().any(|word| fields.contains(word)) {
            continue;
        }
        let sizes = fields.split('(').skip(1).filter_map(|rest| rest.split(')').next());
        let bytes: usize = sizes.filter_map(|size| size.parse::<usize>().ok()).sum();
        assert_eq!(bytes, message.payload_bytes(), "{kind:?}: {fields}");
        checked += 1;
    }
    assert!(checked > 12, "{checked}");
}

#[test]
fn the_page_has_the_limits_of_the_code() {
    let limits = [
        ("payload of a frame", "1 MiB + 64 KiB", PAYLOAD_BYTES_MAX == (1 << 20) + (64 << 10)),
        ("payload of a control frame", "64 KiB", CONTROL_PAYLOAD_BYTES_MAX == 64 << 10),
        ("devices of an offer", "256", DEVICES_MAX == 256),
        ("devices of a session", "4,096", DEVICE_NUMBERS_MAX == 4096),
        ("connections of a session", "16", CONNECTIONS_MAX == 16),
        ("ranges or extents of a message", "4,096", EXTENTS_MAX == 4096),
    ];
    for (name, value, same) in limits {
        assert!(PAGE.contains(&format!("| {name} | {value} |")), "{name}");
        assert!(same, "{name}");
    }
}
