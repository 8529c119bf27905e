//! The documents of commands have the fields and types that the tables of `docs/json.md` list.
//!
//! The tables of jobs are not held here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStringExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use serde_json::json;

use super::*;

const PAGE: &str = include_str!("../../../../docs/json.md");
/// The first heading that is not held.
const END: &str = "\n## Jobs\n";
/// Start of the row below a table's heads.
const RULE: &str = "|---";

/// A field, as the page lists it.
#[derive(Debug)]
struct Field {
    name: String,
    kind: String,
}

/// The tables of the page: by the heading above, or by the command in their first column.
struct Tables {
    all: BTreeMap<String, Vec<Field>>,
    used: RefCell<BTreeSet<String>>,
}

impl Tables {
    fn read() -> Self {
        let (page, _) = PAGE.split_once(END).expect("jobs come last");
        let mut all: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        let (mut heading, mut command) = (String::new(), String::new());
        let mut in_table = false;
        for line in page.lines() {
            if let Some(found) = line.strip_prefix("### ") {
                heading = plain(found);
            }
            if !line.starts_with('|') || line.starts_with(RULE) {
                in_table = line.starts_with(RULE);
                continue;
            }
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let (key, name, kind) = match cells[..] {
                _ if !in_table => continue,
                [name, kind, _] => (&heading, name, kind),
                [of, name, kind, _] => {
                    if !of.is_empty() {
                        command = plain(of);
                    }
                    (&command, name, kind)
                }
                _ => panic!("a table of another form: {line}"),
            };
            let field = Field { name: plain(name), kind: kind.to_owned() };
            all.entry(key.clone()).or_default().push(field);
        }
        Self { all, used: RefCell::default() }
    }

    /// Checks a document against a table.
    #[track_caller]
    fn hold(&self, table: &str, document: &Value) {
        let fields = self.all.get(table).unwrap_or_else(|| panic!("no table {table}"));
        self.used.borrow_mut().insert(table.to_owned());
        let object = document.as_object().unwrap_or_else(|| panic!("{table}: {document}"));
        for Field { name, kind } in fields {
            let is_optional = kind.starts_with("optional ");
            let kind = kind.trim_start_matches("optional ");
            match object.get(name) {
                None => assert!(is_optional, "{table}: {name} is missing in {document}"),
                Some(value) => assert!(fits(kind, value), "{table}: {name} is {value}, not {kind}"),
            }
        }
        let listed: BTreeSet<_> = fields.iter().map(|field| &field.name).collect();
        let more: Vec<_> = object.keys().filter(|name| !listed.contains(name)).collect();
        assert!(more.is_empty(), "{table}: the page does not list {more:?}");
    }

    /// Checks an array of documents; gives them.
    #[track_caller]
    fn hold_all(&self, table: &str, documents: &Value) -> Vec<Value> {
        let documents = documents.as_array().expect("an array").clone();
        assert!(!documents.is_empty(), "{table}: nothing to check");
        documents.iter().for_each(|document| self.hold(table, document));
        documents
    }
}

/// A cell or a heading without its code quotes.
fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

/// True if a value has a type of the page.
fn fits(kind: &str, value: &Value) -> bool {
    if let Some(kind) = kind.strip_suffix(" or null") {
        return value.is_null() || fits(kind, value);
    }
    if let Some(items) = kind.strip_prefix("array of ") {
        let item = items.trim_end_matches('s');
        return value.as_array().is_some_and(|all| all.iter().all(|value| fits(item, value)));
    }
    if kind.starts_with('`') {
        let word = value.to_string();
        return kind.split(", ").any(|known| plain(known) == word);
    }
    let text = value.as_str();
    match kind {
        "true, false" => value.is_boolean(),
        "number" | "bytes" | "seconds" => value.is_u64(),
        "text" => text.is_some(),
        "sentence" => text.is_some_and(|text| text.len() > 5),
        "id" => text.is_some_and(|text| {
            text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
        }),
        "time" => text.is_some_and(|text| {
            text.len() == "2026-11-30T22:02:12.294Z".len()
                && text.parse::<jiff::Timestamp>().is_ok()
        }),
        _ => panic!("the page has a new type: {kind}"),
    }
}

fn volumes(node: &Node, tables: &Tables) {
    let made = node.json(&["volume", "create", "db", "--size", "1M"]);
    tables.hold("Volume", &made);
    assert_eq!((&made["state"], &made["used_bytes"]), (&json!("free"), &json!(0)), "{made}");
    let _client = node.attach("db");
    assert_eq!(node.json(&["volume", "show", "db"])["state"], "serving");
    std::fs::write(node.path("image"), [7; 8192]).expect("a file");
    let imported = node.json(&["import", &node.file("image"), "copy"]);
    tables.hold("import FILE NAME", &imported);
    let waits = node.json(&["volume", "show", "copy"]);
    let volume = node.engine.open_volumes();
    let volume = volume.iter().find(|volume| volume.name() == "copy").expect("it is open");
    node.runtime.block_on(volume.drain()).expect("drains");
    node.runtime.block_on(volume.checkpoint()).expect("makes a checkpoint");
    let shown = node.json(&["volume", "show", "copy"]);
    for one in [&waits, &shown] {
        tables.hold("Volume", one);
    }
    assert_eq!(shown["used_bytes"], 8192, "{shown}");
    assert!(shown["stored_bytes"].as_u64() > Some(0), "{shown}");
    assert_eq!((&shown["undestaged_bytes"], &shown["undestaged_age_s"]), (&json!(0), &Value::Null));
    tables.hold("Volume", &node.json(&["volume", "resize", "copy", "2M"]));
    tables.hold("Volume", &node.json(&["volume", "rename", "copy", "other"]));
    exports(node, tables);
    tables.hold("volume release NAME", &node.json(&["volume", "release", "other"]));
    assert_eq!(node.json(&["volume", "show", "other"])["state"], "free");
}

fn exports(node: &Node, tables: &Tables) {
    let exported = node.json(&["export", "db", &node.file("out")]);
    tables.hold("export NAME FILE", &exported);
    assert!(exported.get("file_base64").is_none(), "{exported}");
    let mut file = node.path("o").into_os_string().into_vec();
    file.push(0xff);
    let data = node.file("");
    let args = ["skerry", "--data", &data, "--json", "export", "db"].map(OsString::from);
    let args = args.into_iter().chain([OsString::from_vec(file.clone())]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = crate::cli::commands::main(args, &|_| None, &mut out, &mut err);
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&err));
    let exported: Value = serde_json::from_slice(&out).expect("a document");
    tables.hold("export NAME FILE", &exported);
    let decoded = BASE64.decode(exported["file_base64"].as_str().expect("the path is no text"));
    assert_eq!(decoded.as_deref(), Ok(file.as_slice()));
}

fn snapshots(node: &Node, tables: &Tables) {
    tables.hold("Snapshot", &node.json(&["snapshot", "create", "db@a"]));
    let device = node.attach("db");
    node.runtime.block_on(device.write(0, Bytes::from(vec![7; 4096]))).expect("writes");
    drop(device);
    node.json(&["snapshot", "create", "db@b"]);
    tables.hold_all("Range", &node.json(&["snapshot", "diff", "db@a", "db@b"]));
    tables.hold("Volume", &node.json(&["volume", "clone", "db@a", "clone"]));
    tables.hold("Snapshot", &node.json(&["volume", "rollback", "db@b", "--force"]));
    tables.hold_all("Snapshot", &node.json(&["snapshot", "list", "db"]));
    let deleted = node.json(&["snapshot", "delete", "db@b"]);
    tables.hold("snapshot delete NAME@SNAP", &deleted);
}

fn schedules(node: &Node, tables: &Tables) {
    let flags = ["--every", "1h", "--keep", "24"];
    let set = node.json(&[&["snapshot", "schedule", "db"], flags.as_slice()].concat());
    tables.hold("Schedule", &set);
    tables.hold("Schedule", &node.json(&["snapshot", "schedule", "db"]));
    tables.hold_all("Schedule", &node.json(&["snapshot", "schedules"]));
    let off = node.json(&["snapshot", "schedule", "db", "--off"]);
    tables.hold("snapshot schedule NAME --off", &off);
}

fn deletions(node: &Node, tables: &Tables) {
    let deleted = node.json(&["volume", "delete", "db"]);
    tables.hold("volume delete NAME", &deleted);
    let shown = node.json(&["volume", "show", "db"]);
    tables.hold("Volume", &shown);
    assert_eq!((&shown["state"], &shown["deleted"]), (&json!("deleted"), &json!(true)));
}

fn node_itself(node: &Node, tables: &Tables) {
    let status = node.json(&["status"]);
    tables.hold("status", &status);
    assert!(status["stored_bytes"].as_u64() > Some(0), "{status}");
    let report = node.json(&["fsck"]);
    tables.hold("fsck", &report);
    assert_eq!(report["problems"], json!([]));
    assert!(report["snapshots"].as_u64() > Some(1), "{report}");
}

fn errors(node: &Node, tables: &Tables) {
    let usage = ["volume", "create", "db", "--json"];
    let unknown = ["volume", "show", "nothing", "--json"];
    let invalid = ["--json", "volume", "show", ".a"];
    for (args, kind, code) in
        [(&usage[..], "usage", 2), (&unknown, "not_found", 3), (&invalid, "invalid", 6)]
    {
        let ran = node.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{args:?}: {ran:?}");
        let document: Value = serde_json::from_str(&ran.err).expect("a document");
        let error = &document["error"];
        tables.hold("Error", error);
        assert_eq!((&error["kind"], &error["exit_code"]), (&json!(kind), &json!(code)));
    }
    // After `--` it is no flag.
    let ran = node.run(&["volume", "frobnicate", "--", "--json"]);
    assert!(ran.err.starts_with("skerry: "), "{ran:?}");
}

/// Once, a volume that could not be read had 0 bytes and was made in 1970.
fn unreadable_volumes(store: Arc<InMemory>, tables: &Tables) {
    let mut maker = Node::over(store.clone(), false);
    let ids = ["desc", "head", "name"].map(|name| {
        let made = maker.json(&["volume", "create", name, "--size", "1M"]);
        made["id"].as_str().expect("an id").to_owned()
    });
    // A volume has a head after its first client.
    drop(maker.attach("head"));
    maker.ok(&["snapshot", "create", "head@a"]);
    maker.ok(&["volume", "release", "head"]);
    maker.stop();
    let all = futures::executor::block_on(store.list(None).try_collect::<Vec<_>>());
    let all = all.expect("lists").into_iter().map(|object| object.location);
    let torn = |path: &str| {
        path.starts_with(&format!("volumes/{}/desc", ids[0]))
            || path.starts_with(&format!("volumes/{}/head/", ids[1]))
            || path.starts_with("names/name/")
    };
    for path in all.filter(|path| torn(path.as_ref())) {
        let put = store.put(&path, Bytes::from_static(&[0xee; 64]).into());
        futures::executor::block_on(put).expect("puts");
    }
    let node = Node::over(store, false);
    let listed = tables.hold_all("Volume", &node.json(&["volume", "list"]));
    for name in ["desc", "head", "name"] {
        let volume = listed.iter().find(|volume| volume["name"] == name).expect("it is listed");
        assert_eq!((&volume["state"], &volume["size_bytes"]), (&json!("failed"), &Value::Null));
        assert_eq!(volume["id"].is_null(), name == "name", "{volume}");
        assert_eq!(volume["created_at"].is_null(), name != "head", "{volume}");
        assert!(volume["failure"].is_string(), "{volume}");
    }
}

#[test]
fn every_document_is_as_the_page_lists_it() {
    let tables = Tables::read();
    let node = Node::with_jobs();
    volumes(&node, &tables);
    snapshots(&node, &tables);
    node_itself(&node, &tables);
    schedules(&node, &tables);
    deletions(&node, &tables);
    tables.hold_all("Volume", &node.json(&["volume", "list"]));
    errors(&node, &tables);
    unreadable_volumes(Arc::default(), &tables);
    let all: BTreeSet<_> = tables.all.keys().cloned().collect();
    assert_eq!(*tables.used.borrow(), all, "a table that no command was compared with");
}
