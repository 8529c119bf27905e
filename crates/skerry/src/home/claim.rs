//! Claims a start of the node in its bucket, and looks for a copy of the node that has claimed the
//! next one.
//!
//! [`skerry_core::start`] has the protocol and decides; this carries it out.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::id::{ClaimId, NodeId};
use skerry_core::names::{self, Object};
use skerry_core::start::{self, Conflict, NotedStart, StartPlace, StartRecord};
use skerry_store::objects::bucket::{Bucket, Created};

use crate::api_error::of_engine;
use crate::home::identity::Identity;
use crate::home::layout::{Layout, is_within};
use crate::home::note;
use crate::home::slots;

/// Interval of looks for a copy. A node that is overtaken acknowledges in vain until the next look:
/// those writes are parked, not merged.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The origin, for people, of a start that the node's own notes do not know.
const UNNOTED: &str = "from another data directory, or this one has lost its note of that";

/// The note of the last start.
#[derive(Serialize, Deserialize)]
struct Noted {
    bucket: String,
    number: u64,
    claim: String,
    /// The first start of the node's present line, unless that is the first line: see
    /// [`Claim::line`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<String>,
}

/// A claimed start.
pub(crate) struct Claim {
    bucket: Bucket,
    number: u64,
    line: Option<ClaimId>,
    context: Context,
}

/// Facts for claims and refusals.
#[derive(Clone)]
struct Context {
    node: NodeId,
    host: String,
    note: PathBuf,
    /// Files that are removed to make a copy a node of its own.
    own: Vec<PathBuf>,
    /// Logs outside the data directory. They may be the first node's as well, and must not be
    /// removed.
    shared_logs: Vec<PathBuf>,
}

/// The object under the number of a start.
enum Found {
    Nothing,
    Record(StartRecord),
    /// A start was claimed, by an unknown node.
    Damaged(Error),
}

impl Claim {
    /// Claims the next start of the node, from `place`. `logs` are the directories of its logs.
    /// `in_its_place` means that a person says that no other copy of the node runs. The caller
    /// holds the data directory's lock.
    ///
    /// # Errors
    /// `InUse` if a copy of the node was started on this bucket; `Unavailable`, `Corrupt`.
    pub(crate) async fn take(
        bucket: &Bucket,
        layout: &Layout,
        logs: Vec<PathBuf>,
        identity: &Identity,
        place: StartPlace,
        in_its_place: bool,
    ) -> Result<Self> {
        let context = Context::new(layout, logs, identity);
        let mut line = context.line()?;
        let first = async {
            let next = context.next(bucket, &place).await?;
            context.claim(bucket, next, place, line).await.map(|()| next)
        };
        let next = match first.await {
            Err(error) if in_its_place && error.kind() == ErrorKind::InUse => {
                tracing::warn!(%error, "going on in its place, as was asked for");
                let next = context.in_its_place(bucket).await?;
                if context.is_overtaken(bucket, next.number - 1).await? {
                    line = Some(next.claim);
                }
                context.claim(bucket, next, place, line).await?;
                next
            }
            next => next?,
        };
        Ok(Self { bucket: bucket.clone(), number: next.number, line, context })
    }

    /// Tells the node's line from those of its copies. It changes when the node goes on though a
    /// copy of it has run since. Writes that the node had acknowledged before never follow that
    /// copy's writes, and the other way round.
    pub(crate) fn line(&self) -> Option<ClaimId> {
        self.line
    }

    /// Returns when a copy of the node has been started, with the error to report.
    pub(crate) async fn overtaken(&self, interval: Duration) -> Error {
        loop {
            tokio::time::sleep(interval).await;
            match self.context.read(&self.bucket, self.number + 1).await {
                Ok(Found::Nothing) => {}
                Ok(Found::Record(found)) => {
                    return self.context.refusal(how(Conflict::Overtaken), &found);
                }
                // Only a copy makes such a record, whatever damaged it since.
                Ok(Found::Damaged(error)) => return self.context.unreadable(&error),
                Err(error) => tracing::debug!(%error, "no look for a copy of this node now"),
            }
        }
    }
}

impl Context {
    fn new(layout: &Layout, logs: Vec<PathBuf>, identity: &Identity) -> Self {
        let mut own = vec![layout.identity(), layout.last_start(), layout.log_place()];
        let is_own = |log: &PathBuf| is_within(log, layout.data());
        let (own_logs, shared_logs) = logs.into_iter().partition::<Vec<_>, _>(is_own);
        own.extend(own_logs);
        let (node, host) = (identity.node, identity.host.clone());
        Self { node, host, note: layout.last_start(), own, shared_logs }
    }

    /// Decides the next claim from the note and the bucket.
    async fn next(&self, bucket: &Bucket, here: &StartPlace) -> Result<NotedStart> {
        let fresh = ClaimId::random(&**bucket.entropy());
        let Some(noted) = self.noted(bucket)? else {
            return match self.newest(bucket).await? {
                0 => Ok(NotedStart { number: 1, claim: fresh }),
                newest => Err(self.unnoted(bucket, newest).await?),
            };
        };
        let found = match self.read(bucket, noted.number).await? {
            Found::Nothing => None,
            Found::Record(found) => Some(found),
            Found::Damaged(error) => return Err(self.unreadable(&error)),
        };
        start::next(noted, found.as_ref(), here, fresh).map_err(|conflict| match &found {
            Some(found) => self.refusal(how(conflict), found),
            None => Error::new(ErrorKind::Internal, "a start conflicts with nothing".to_owned()),
        })
    }

    /// Notes a start and claims it.
    async fn claim(
        &self,
        bucket: &Bucket,
        next: NotedStart,
        place: StartPlace,
        line: Option<ClaimId>,
    ) -> Result<()> {
        let noted = Noted {
            bucket: bucket.id().to_string(),
            number: next.number,
            claim: next.claim.to_string(),
            line: line.map(|line| line.to_string()),
        };
        // Before the record is made: a crash in between must not make the node a stranger to
        // itself.
        slots::write(&self.note, &noted)?;
        self.create(bucket, next, place).await
    }

    /// True if a copy of the node was started after the start in the node's own note. `newest` is
    /// the highest claimed number. Without a note it can't be told.
    async fn is_overtaken(&self, bucket: &Bucket, newest: u64) -> Result<bool> {
        let Some(noted) = self.noted(bucket)? else { return Ok(false) };
        if newest > noted.number {
            return Ok(true);
        }
        Ok(match self.read(bucket, noted.number).await? {
            Found::Nothing => false,
            Found::Record(found) => found.claim != noted.claim,
            // A copy may have made it. So acknowledged records stay apart, and are merged with
            // none.
            Found::Damaged(_) => true,
        })
    }

    fn read_note(&self) -> Result<Option<Noted>> {
        slots::read(&self.note).map_err(|error| {
            note::advised(
                &error,
                "remove it, and start once with --in-its-place if no copy of the node runs",
            )
        })
    }

    /// The node's line, whatever bucket it was on.
    fn line(&self) -> Result<Option<ClaimId>> {
        let noted = self.read_note()?;
        let line = noted.and_then(|noted| noted.line);
        line.map(|line| self.claim_id(&line)).transpose()
    }

    fn claim_id(&self, text: &str) -> Result<ClaimId> {
        text.parse().map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("{}: {error}", self.note.display()))
        })
    }

    /// The refusal of a node that has no note of its starts on the bucket.
    async fn unnoted(&self, bucket: &Bucket, newest: u64) -> Result<Error> {
        match self.read(bucket, newest).await? {
            Found::Nothing => Err(missing(&names::node_start(self.node, newest))),
            Found::Record(found) => Ok(self.refusal(UNNOTED, &found)),
            Found::Damaged(error) => Ok(self.unreadable(&error)),
        }
    }

    /// The next claim when a person says that no other copy runs.
    async fn in_its_place(&self, bucket: &Bucket) -> Result<NotedStart> {
        let number = self.newest(bucket).await? + 1;
        Ok(NotedStart { number, claim: ClaimId::random(&**bucket.entropy()) })
    }

    fn noted(&self, bucket: &Bucket) -> Result<Option<NotedStart>> {
        let noted = self.read_note()?;
        let Some(noted) = noted.filter(|noted| noted.bucket == bucket.id().to_string()) else {
            return Ok(None);
        };
        let claim = self.claim_id(&noted.claim)?;
        Ok(Some(NotedStart { number: noted.number, claim }))
    }

    /// The highest claimed number; 0 if none is.
    async fn newest(&self, bucket: &Bucket) -> Result<u64> {
        let listed = bucket.list(&names::node_prefix(self.node)).await.map_err(of_engine)?;
        let number = |name: &str| match names::parse(name) {
            Object::NodeStart(_, number) => Some(number),
            _ => None,
        };
        Ok(listed.iter().filter_map(|object| number(&object.name)).max().unwrap_or(0))
    }

    async fn read(&self, bucket: &Bucket, number: u64) -> Result<Found> {
        let name = names::node_start(self.node, number);
        let Some(bytes) = bucket.get(&name).await.map_err(of_engine)? else {
            return Ok(Found::Nothing);
        };
        Ok(match StartRecord::decode(&bytes) {
            Ok(record) => Found::Record(record),
            Err(error) => Found::Damaged(of_engine(skerry_store::Error::format(name, error))),
        })
    }

    async fn create(&self, bucket: &Bucket, next: NotedStart, place: StartPlace) -> Result<()> {
        let record = StartRecord {
            node: self.node,
            number: next.number,
            claim: next.claim,
            host: self.host.clone(),
            place,
            at_ms: bucket.clock().wall_ms(),
        };
        let name = names::node_start(self.node, next.number);
        let bytes = record.encode(bucket.nonce());
        if bucket.create(&name, bytes).await.map_err(of_engine)? == Created::Ours {
            return Ok(());
        }
        match self.read(bucket, next.number).await? {
            Found::Record(found) if found.claim == next.claim => {
                match place.difference(&found.place) {
                    // From a start that died: its PUT was late.
                    None => Ok(()),
                    // From a node that was copied between its note and its record.
                    Some(how) => Err(self.refusal(how, &found)),
                }
            }
            Found::Record(found) => Err(self.refusal(how(Conflict::Overtaken), &found)),
            Found::Damaged(error) => Err(self.unreadable(&error)),
            Found::Nothing => Err(missing(&name)),
        }
    }

    fn refusal(&self, how: &str, found: &StartRecord) -> Error {
        let when = i64::try_from(found.at_ms)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let when = when.map(|time| format!(" at {time:.0}")).unwrap_or_default();
        let message = format!(
            "node {} was started {how}, on host {}{when}; two nodes with one identity would lose \
             each other's writes. {}",
            self.node,
            found.host,
            self.advice(),
        );
        Error::new(ErrorKind::InUse, message)
    }

    /// Refuses a start after an unreadable record: a copy may have made it, or this node.
    fn unreadable(&self, error: &Error) -> Error {
        let message = format!(
            "a start of node {} can't be read, so that a copy of it may run: {error}; two nodes \
             with one identity would lose each other's writes. {}",
            self.node,
            self.advice(),
        );
        Error::new(ErrorKind::InUse, message)
    }

    /// Advice for a person about another start.
    fn advice(&self) -> String {
        let own: Vec<_> = self.own.iter().map(|path| path.display().to_string()).collect();
        let shared: Vec<_> = self.shared_logs.iter().map(|log| log.display().to_string()).collect();
        let own_log = match shared.is_empty() {
            true => String::new(),
            false => format!(
                ", and give it logs of its own (--log; path in [database.wal]): what is in {} is \
                 the other one's, and stays",
                shared.join(", ")
            ),
        };
        format!(
            "To make this one a node of its own, remove {}{own_log}. If the other one is gone for \
             good, or there is no other, start this one once with --in-its-place",
            own.join(", "),
        )
    }
}

/// The origin of the other start, for people.
fn how(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::Overtaken => "by a copy of this data directory",
        Conflict::Elsewhere(how) => how,
    }
}

fn missing(name: &str) -> Error {
    let message = format!("the bucket says that {name} exists, and does not have it: try again");
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{SystemClock, SystemEntropy};
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use skerry_store::objects::bucket::Env;
    use std::path::Path;
    use std::sync::Arc;

    async fn bucket() -> Bucket {
        bucket_on(Arc::new(InMemory::new())).await
    }

    async fn bucket_on(store: Arc<InMemory>) -> Bucket {
        let env = Env { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) };
        Bucket::open(store, env, true).await.expect("a bucket")
    }

    /// Puts another object at the name of a start's record.
    async fn damage(store: &InMemory, number: u64) {
        let name = names::node_start(NodeId([7; 16]), number).into();
        store.put(&name, b"no record".as_slice().into()).await.expect("put");
    }

    /// A node at some place, with notes of its own.
    struct Host {
        layout: Layout,
        place: StartPlace,
    }

    impl Host {
        fn new(dir: &Path, name: &str, directory: u64) -> Self {
            let layout = Layout::new(&dir.join(name)).expect("a layout");
            layout.create().expect("made");
            Self { layout, place: StartPlace { directory, ..StartPlace::default() } }
        }

        async fn start(&self, bucket: &Bucket) -> Result<Claim> {
            self.start_as(bucket, false).await
        }

        async fn go_on(&self, bucket: &Bucket) -> Result<Claim> {
            self.start_as(bucket, true).await
        }

        async fn start_as(&self, bucket: &Bucket, in_its_place: bool) -> Result<Claim> {
            let identity = Identity { node: NodeId([7; 16]), host: "h".to_owned() };
            let logs = vec![self.layout.data().join("log"), "/fast/jobs".into()];
            Claim::take(bucket, &self.layout, logs, &identity, self.place, in_its_place).await
        }

        fn copy_notes_to(&self, other: &Self) {
            std::fs::copy(self.layout.last_start(), other.layout.last_start()).expect("copied");
        }

        fn forget(&self) {
            std::fs::remove_file(self.layout.last_start()).expect("removed");
        }
    }

    #[track_caller]
    fn refused(started: Result<Claim>) {
        let Err(error) = started else { panic!("it starts") };
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.message().contains("--in-its-place"), "{error}");
        assert!(error.message().contains("what is in /fast/jobs is"), "the jobs' log: {error}");
    }

    #[tokio::test]
    async fn a_node_starts_again_and_again_and_its_copy_does_not() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 2));
        for number in 1..4 {
            assert_eq!(one.start(&bucket).await.expect("starts").number, number);
        }
        one.copy_notes_to(&two);
        refused(two.start(&bucket).await);
        one.start(&bucket).await.expect("starts");
        refused(two.start(&bucket).await);
        // A block for block copy of the disk, with the same notes, at a place that looks the same.
        let twin = Host { place: one.place, ..two };
        one.copy_notes_to(&twin);
        one.start(&bucket).await.expect("starts");
        for _ in 0..2 {
            refused(twin.start(&bucket).await);
        }
        // Told that the other node is gone, it goes on; and then the other one refuses.
        twin.go_on(&bucket).await.expect("goes on");
        twin.start(&bucket).await.expect("again");
        refused(one.start(&bucket).await);
    }

    /// A node that learns only from the next number that it was overtaken goes on when it is told
    /// once, too.
    #[tokio::test]
    async fn one_that_was_overtaken_goes_on_when_it_is_told_once() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 2));
        one.start(&bucket).await.expect("starts");
        one.copy_notes_to(&two);
        two.go_on(&bucket).await.expect("goes on");
        assert_eq!(one.go_on(&bucket).await.expect("goes on").number, 3);
        refused(two.start(&bucket).await);
        one.start(&bucket).await.expect("again");
    }

    /// A node that goes on though its copy has run begins a line of its own, for good. A node that
    /// was only moved does not.
    #[tokio::test]
    async fn a_node_that_was_overtaken_begins_a_new_line() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 2));
        one.start(&bucket).await.expect("starts");
        one.copy_notes_to(&two);
        for _ in 0..2 {
            assert_eq!(two.go_on(&bucket).await.expect("goes on").line(), None, "it was moved");
        }
        // Also if it was refused before it was told.
        refused(one.start(&bucket).await);
        let line = one.go_on(&bucket).await.expect("goes on").line();
        assert!(line.is_some());
        assert_eq!(one.start(&bucket).await.expect("again").line(), line);
        let back = two.go_on(&bucket).await.expect("goes on").line();
        assert!(back.is_some() && back != line);
        // A copy that is made elsewhere of a node that goes on, and is started later.
        one.copy_notes_to(&two);
        assert!(one.go_on(&bucket).await.expect("goes on").line() != line);
        let last = two.go_on(&bucket).await.expect("goes on").line();
        assert!(last.is_some() && last != line);
    }

    /// A template whose node had not met the bucket, and a node that lost its note.
    #[tokio::test]
    async fn without_a_note_only_the_first_one_starts() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 1));
        one.start(&bucket).await.expect("starts");
        refused(two.start(&bucket).await);
        one.start(&bucket).await.expect("starts again");
        refused(two.start(&bucket).await);
        one.forget();
        refused(one.start(&bucket).await);
        assert_eq!(one.go_on(&bucket).await.expect("goes on").number, 3);
        assert_eq!(one.start(&bucket).await.expect("starts").number, 4);
        assert_eq!(one.go_on(&bucket).await.expect("needs no word").number, 5);
    }

    /// A copy that was made between the note of a start and its record claims the same start,
    /// elsewhere.
    #[tokio::test]
    async fn a_copy_of_a_start_on_its_way_is_refused() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 2));
        one.start(&bucket).await.expect("starts");
        one.copy_notes_to(&two);
        let context = one.start(&bucket).await.expect("starts").context;
        one.copy_notes_to(&two);
        let next = context.noted(&bucket).expect("a note").expect("one");
        let context = Context { note: two.layout.last_start(), ..context };
        let error = context.create(&bucket, next, two.place).await.expect_err("a copy");
        assert_eq!(error.kind(), ErrorKind::InUse);
    }

    /// Wherever a start dies, the next one of the same node goes on.
    #[tokio::test]
    async fn a_crash_anywhere_leaves_the_node_its_own() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let host = Host::new(dir.path(), "one", 1);
        for is_claimed in [false, true, false, false, true, true] {
            let first = host.start(&bucket).await.expect("starts");
            let context = &first.context;
            let next = context.next(&bucket, &host.place).await.expect("more");
            assert_eq!(next.number, first.number + 1);
            let noted = Noted {
                bucket: bucket.id().to_string(),
                number: next.number,
                claim: next.claim.to_string(),
                line: None,
            };
            slots::write(&context.note, &noted).expect("written");
            if is_claimed {
                context.create(&bucket, next, host.place).await.expect("made");
            }
            let again = host.start(&bucket).await.expect("starts after a crash");
            assert_eq!(again.number, next.number + u64::from(is_claimed));
            // Whenever the dead start's PUT lands, the record is the node's own.
            context.create(&bucket, next, host.place).await.expect("its own");
        }
    }

    #[tokio::test]
    async fn one_that_runs_notices_its_copy() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let (one, two) = (Host::new(dir.path(), "one", 1), Host::new(dir.path(), "two", 1));
        let first = one.start(&bucket).await.expect("starts");
        one.copy_notes_to(&two);
        let second = two.start(&bucket).await.expect("can't be told from a restart");
        let error = first.overtaken(Duration::from_millis(1)).await;
        assert_eq!(error.kind(), ErrorKind::InUse);
        let none = second.overtaken(Duration::from_millis(1));
        assert!(futures::FutureExt::now_or_never(none).is_none());
    }

    #[tokio::test]
    async fn another_bucket_begins_anew_and_a_way_back_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = (bucket().await, bucket().await);
        let host = Host::new(dir.path(), "one", 1);
        host.start(&first).await.expect("starts");
        host.start(&first).await.expect("starts");
        assert_eq!(host.start(&second).await.expect("starts").number, 1);
        refused(host.start(&first).await);
        assert_eq!(host.go_on(&first).await.expect("goes on").number, 3);
    }

    /// An unreadable record may be a copy's. With `--in-its-place` the node goes on all the same.
    #[tokio::test]
    async fn a_damaged_record_is_another_start_and_no_end() {
        let (dir, store) = (tempfile::tempdir().expect("a directory"), Arc::new(InMemory::new()));
        let bucket = bucket_on(store.clone()).await;
        let host = Host::new(dir.path(), "one", 1);
        host.start(&bucket).await.expect("starts");
        damage(&store, 1).await;
        refused(host.start(&bucket).await);
        let claim = host.go_on(&bucket).await.expect("goes on");
        assert_eq!(claim.number, 2);
        assert!(claim.line().is_some(), "a copy may have run");
        assert_eq!(host.start(&bucket).await.expect("starts").number, 3);
        // Without a note, the newest record is read.
        damage(&store, 3).await;
        host.forget();
        refused(host.start(&bucket).await);
        assert_eq!(host.go_on(&bucket).await.expect("goes on").number, 4);
        // Now the record under the next number.
        let noted = host.start(&bucket).await.expect("starts").context;
        damage(&store, 6).await;
        let next = noted.next(&bucket, &host.place).await.expect("a number");
        assert_eq!(next.number, 6);
        refused(host.start(&bucket).await);
        assert_eq!(host.go_on(&bucket).await.expect("goes on").number, 7);
        host.start(&bucket).await.expect("starts");
    }

    #[tokio::test]
    async fn one_that_runs_ends_before_a_record_that_it_can_not_read() {
        let (dir, store) = (tempfile::tempdir().expect("a directory"), Arc::new(InMemory::new()));
        let bucket = bucket_on(store.clone()).await;
        let claim = Host::new(dir.path(), "one", 1).start(&bucket).await.expect("starts");
        damage(&store, claim.number + 1).await;
        let ends = claim.overtaken(Duration::from_millis(1));
        let error = tokio::time::timeout(skerry_testkit::PATIENCE, ends).await.expect("it ends");
        assert_eq!(error.kind(), ErrorKind::InUse);
    }

    /// The log of a copy may be the first node's.
    #[test]
    fn only_what_is_in_the_data_directory_is_named_for_removal() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Host::new(dir.path(), "copy", 1);
        let (inside, outside) = (host.layout.data().join("log"), dir.path().join("log"));
        std::fs::create_dir(&outside).expect("made");
        let link = host.layout.data().join("link");
        std::os::unix::fs::symlink(&outside, &link).expect("made");
        let identity = Identity { node: NodeId([7; 16]), host: "h".to_owned() };
        let advice =
            |log: &Path| Context::new(&host.layout, vec![log.to_owned()], &identity).advice();
        let said = |log: &Path| advice(log).contains(&format!(", {}.", log.display()));
        assert!(said(&inside), "{}", advice(&inside));
        for log in [&outside, &link, &host.layout.data().join("../log")] {
            assert!(!said(log), "{}", advice(log));
            assert!(advice(log).contains("--log"), "{}", advice(log));
        }
    }

    #[tokio::test]
    async fn a_damaged_note_says_what_to_do() {
        let (dir, bucket) = (tempfile::tempdir().expect("a directory"), bucket().await);
        let host = Host::new(dir.path(), "one", 1);
        host.start(&bucket).await.expect("starts");
        std::fs::write(host.layout.last_start(), "no note").expect("written");
        let Err(error) = host.start(&bucket).await else { panic!("it starts") };
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("--in-its-place"), "{error}");
        host.forget();
        host.go_on(&bucket).await.expect("as it says");
    }
}
