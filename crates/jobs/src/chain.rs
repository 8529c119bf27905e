//! Decides whose a jobs database is, by the chain of its owner records. Each record is made only if
//! there is none of its number, and the newest names the owner. This module reads and writes
//! nothing itself.
//!
//! Participants: nodes that share a bucket. Each has one database of its own, below a path that
//! does not name the node. So another node can have it when the first is lost. Goals: no two nodes
//! serve one database. A node that comes back finds out that it was relieved, and begins no new
//! database while its jobs are elsewhere. No clock decides. Non-goal: to find out whether a node is
//! lost; people say so.
//!
//! Must hold: a node reads the chains before it opens a database *and after*, and serves only what
//! is its own then. SlateDB's epoch keeps the writes of two nodes from mixing; the records decide
//! which of them stops. A node gives its own database up *before* it takes another's, so a crash in
//! between leaves it none, and never two.

use crate::error::{Error, ErrorKind, Result};
use crate::owner::{DatabaseId, Owner};
use skerry_core::id::NodeId;
use std::collections::BTreeMap;

/// The owner records of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The database.
    pub database: DatabaseId,
    /// The records by their numbers, or the reason why one can't be read.
    pub records: BTreeMap<u64, std::result::Result<Owner, String>>,
}

/// A record that can't be read, and may name any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The database of the record.
    pub database: DatabaseId,
    /// Its number.
    pub number: u64,
    /// The reason why it can't be read.
    pub why: String,
}

impl Unread {
    /// The error for a node: what this means, and what helps.
    pub fn error(&self) -> Error {
        let detail = format!(
            "{} can't be read ({}), and may say that this node's jobs are in that database: `skerry jobs take-over {}` \
             opens it here; a node that never had jobs begins when another has taken it over and this record is deleted",
            self.database.owner(self.number),
            self.why,
            self.database
        );
        Error::new(ErrorKind::Corrupt, detail)
    }
}

/// A node's databases, by the chains of all databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Has {
    /// One database, of which this is the newest record.
    Its(Owner),
    /// More than one: an earlier version stopped in the middle of a take-over. No guess opens one
    /// of them.
    Several(Vec<Owner>),
    /// The owner of this record has the database that was the node's.
    WasRelieved(Owner),
    /// This record may be the node's: it must not begin anew.
    Unclear(Unread),
    /// No database. These belong to other nodes.
    Nothing(Vec<Owner>),
}

/// The steps of a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The database that the node has afterwards.
    pub database: DatabaseId,
    /// The database that it gives up for that, and in which it must have no jobs.
    pub gives_up: Option<DatabaseId>,
    /// The records to make, in this order: one that fails ends the take-over.
    pub records: Vec<Owner>,
}

/// The node that takes over, as its records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    /// Its id.
    pub node: NodeId,
    /// Its host's name.
    pub host: String,
    /// Number of shards that it opens.
    pub shards: u16,
    /// The time now, for people.
    pub now_ms: u64,
    /// The database that it opens.
    pub current: Option<DatabaseId>,
}

/// The nodes of a chain to which its jobs belong.
#[derive(Default)]
struct Holders {
    /// The owner last; before it the nodes that were relieved of the database, each by the next.
    nodes: Vec<NodeId>,
    /// A record that can't be read, and that the next one does not explain.
    unread: Option<u64>,
}

impl Holders {
    /// Notes that a node takes the database. If it had it before, later nodes were relieved of
    /// nothing: each of them gave its own up.
    fn take(&mut self, node: NodeId) {
        match self.nodes.iter().position(|held| *held == node) {
            Some(at) => self.nodes.truncate(at + 1),
            None => self.nodes.push(node),
        }
    }

    /// Notes that the database was given up. It had no jobs then, so earlier nodes do not matter.
    fn give_up(&mut self) {
        *self = Self::default();
    }
}

impl Chain {
    fn newest(&self) -> Option<(u64, &std::result::Result<Owner, String>)> {
        self.records.last_key_value().map(|(number, record)| (*number, record))
    }

    /// The newest record, if it can be read.
    pub fn last(&self) -> Option<&Owner> {
        self.newest().and_then(|(_, record)| record.as_ref().ok())
    }

    /// The newest record, if it names an owner.
    pub fn owner(&self) -> Option<&Owner> {
        self.last().filter(|owner| !owner.node.is_none())
    }

    /// The newest record, if it can't be read.
    pub fn damage(&self) -> Option<Unread> {
        match self.newest() {
            Some((number, Err(_))) => self.unread(number),
            _ => None,
        }
    }

    fn unread(&self, number: u64) -> Option<Unread> {
        let why = self.records.get(&number)?.as_ref().err()?.clone();
        Some(Unread { database: self.database, number, why })
    }

    fn holders(&self) -> Holders {
        let mut held = Holders::default();
        let (mut last_read, mut pending) = (0, None);
        for (&number, record) in &self.records {
            let Ok(owner) = record else {
                held.unread = held.unread.or(pending);
                pending = Some(number);
                continue;
            };
            // The record after a damaged or missing one names its node.
            if last_read + 1 != number && !owner.before.is_none() {
                pending = pending.filter(|unread| unread + 1 != number);
                held.take(owner.before);
            }
            held.unread = held.unread.or(pending.take());
            last_read = number;
            if owner.node.is_none() {
                held.give_up();
            } else {
                held.take(owner.node);
            }
        }
        held.unread = held.unread.or(pending);
        held
    }

    /// The number of shards, if a record has it.
    fn shards(&self) -> Option<u16> {
        let read = self.records.values().rev().filter_map(|record| record.as_ref().ok());
        read.map(|owner| owner.shards).find(|shards| *shards != 0)
    }

    /// Refuses another number of shards: the number picks the shard of each tenant's jobs.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn check_shards(&self, shards: u16) -> Result<()> {
        match self.shards() {
            Some(has) if has != shards => {
                let detail = format!(
                    "jobs database {} has {has} shards, and this node is set to {shards}: the number can't be changed; \
                     set `shards` below [jobs] to {has}",
                    self.database
                );
                Err(Error::new(ErrorKind::Conflict, detail))
            }
            _ => Ok(()),
        }
    }
}

/// Decides what a node has.
pub fn has(node: NodeId, chains: &[Chain]) -> Has {
    let owners = || chains.iter().filter_map(Chain::owner);
    let mut its: Vec<&Owner> = owners().filter(|owner| owner.node == node).collect();
    match its.pop() {
        Some(only) if its.is_empty() => return Has::Its(only.clone()),
        Some(last) => return Has::Several(its.into_iter().chain([last]).cloned().collect()),
        None => {}
    }
    if let Some(by) = relieved(node, chains) {
        return Has::WasRelieved(by.clone());
    }
    let unread = chains.iter().filter_map(|chain| chain.unread(chain.holders().unread?));
    match unread.min_by_key(|unread| unread.database) {
        Some(unread) => Has::Unclear(unread),
        None => Has::Nothing(owners().cloned().collect()),
    }
}

/// The owner of what was the node's, if another has it.
fn relieved(node: NodeId, chains: &[Chain]) -> Option<&Owner> {
    let by = |chain: &'_ Chain| chain.holders().nodes.contains(&node);
    chains.iter().filter(|chain| by(chain)).find_map(Chain::owner)
}

/// Plans the take-over of the database with this name: its own id, its node's id, or its host's
/// name. No name means the node's own database, or the one that was its own.
///
/// # Errors
/// `NotFound`, `Invalid` if more than one has this name. `Conflict` if it has another number of
/// shards, or if the node has several. `Corrupt` if no record tells whether what the node opens is
/// its own to give up.
pub fn plan(taker: &Taker, chains: &[Chain], named: &str) -> Result<Plan> {
    let found = match named {
        "" => own(taker.node, chains)?,
        named => find(chains, named)?,
    };
    found.check_shards(taker.shards)?;
    let current = chains.iter().find(|chain| Some(chain.database) == taker.current);
    let left = current.filter(|current| current.database != found.database);
    if let Some(unread) = left.and_then(Chain::damage) {
        return Err(unread.error());
    }
    let is_its = |chain: &&Chain| chain.owner().is_some_and(|owner| owner.node == taker.node);
    let mut given_up = chains.iter().filter(is_its).filter(|own| own.database != found.database);
    let (gives_up, more) = (given_up.next(), given_up.next());
    if more.is_some() || (gives_up.is_some() && is_its(&found)) {
        return Err(several(taker.node));
    }
    let mut records = Vec::new();
    if let Some(own) = gives_up.and_then(Chain::owner) {
        let (number, node, before) = (own.number + 1, NodeId::NONE, own.node);
        records.push(Owner { number, node, before, taken_ms: taker.now_ms, ..own.clone() });
    }
    if !is_its(&found) {
        records.push(Owner {
            database: found.database,
            number: found.newest().map_or(0, |(number, _)| number) + 1,
            node: taker.node,
            before: found.last().map_or(NodeId::NONE, |owner| owner.node),
            taken_ms: taker.now_ms,
            // An unknown number is not made up.
            shards: found.shards().unwrap_or(0),
            host: taker.host.clone(),
        });
    }
    let gives_up = gives_up.map(|chain| chain.database);
    Ok(Plan { database: found.database, gives_up, records })
}

/// The error for a node with several databases: why it opens none, and what helps.
pub fn several(node: NodeId) -> Error {
    let detail = format!(
        "node {node} has more than one jobs database: see `skerry jobs nodes`, and let another node take all but one of \
         them over (`skerry jobs take-over DATABASE`)"
    );
    Error::new(ErrorKind::Conflict, detail)
}

fn own(node: NodeId, chains: &[Chain]) -> Result<&Chain> {
    let is_its = |chain: &&Chain| chain.owner().is_some_and(|owner| owner.node == node);
    let was_its = || {
        let by = relieved(node, chains)?;
        chains.iter().find(|chain| chain.database == by.database)
    };
    chains.iter().find(is_its).or_else(was_its).ok_or_else(|| {
        let detail = "this node never had jobs in this bucket: name another";
        Error::new(ErrorKind::NotFound, detail)
    })
}

fn find<'a>(chains: &'a [Chain], named: &str) -> Result<&'a Chain> {
    let is_its = |owner: &Owner| owner.node.to_string() == named || owner.host == named;
    let is_it =
        |chain: &&Chain| chain.database.to_string() == named || chain.owner().is_some_and(is_its);
    let mut found = chains.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let detail =
                format!("no node {named:?} has jobs in this bucket: see `skerry jobs nodes`");
            Err(Error::new(ErrorKind::NotFound, detail))
        }
        (Some(_), Some(_)) => {
            let detail =
                format!("{named:?} is more than one: name the database's id (`skerry jobs nodes`)");
            Err(Error::new(ErrorKind::Invalid, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u8 = 0;
    const A: u8 = 1;
    const B: u8 = 2;
    const C: u8 = 3;

    fn id(node: u8) -> NodeId {
        if node == NONE { NodeId::NONE } else { NodeId([node; 16]) }
    }

    /// A database whose records name these nodes; `None` is a record that can't be read.
    fn chain(database: u8, nodes: &[Option<u8>]) -> Chain {
        let before = |at: usize| at.checked_sub(1).and_then(|at| nodes[at]).unwrap_or(NONE);
        let database = DatabaseId(NodeId([database; 16]));
        let records = nodes.iter().enumerate().map(|(at, node)| {
            let number = at as u64 + 1;
            let record = node.ok_or_else(|| "damaged".to_owned()).map(|node| Owner {
                database,
                number,
                node: id(node),
                before: id(before(at)),
                // No clock decides: by its times, the newest is the oldest.
                taken_ms: 1_000 - number,
                shards: 0,
                host: format!("host-{node}"),
            });
            (number, record)
        });
        Chain { database, records: records.collect() }
    }

    fn read(database: u8, nodes: &[u8]) -> Chain {
        chain(database, &nodes.iter().copied().map(Some).collect::<Vec<_>>())
    }

    fn taker(node: u8) -> Taker {
        Taker { node: id(node), host: format!("host-{node}"), shards: 1, now_ms: 5, current: None }
    }

    fn is_relieved(node: u8, by: u8, chains: &[Chain]) -> bool {
        matches!(has(id(node), chains), Has::WasRelieved(owner) if owner.node == id(by))
    }

    fn begins_anew(node: u8, chains: &[Chain]) -> bool {
        matches!(has(id(node), chains), Has::Nothing(_))
    }

    #[test]
    fn a_node_has_the_database_whose_newest_record_names_it() {
        assert_eq!(has(id(A), &[]), Has::Nothing(Vec::new()));
        let (mine, others) = (read(1, &[A]), read(2, &[B]));
        let theirs = others.owner().expect("B's").clone();
        assert_eq!(has(id(A), std::slice::from_ref(&others)), Has::Nothing(vec![theirs]));
        let newest = mine.owner().expect("A's").clone();
        assert_eq!(has(id(A), &[mine, others]), Has::Its(newest));
    }

    #[test]
    fn a_node_that_gave_its_own_up_and_was_taken_from_begins_anew() {
        // B gave 2 up for A's, and A took its own back.
        let chains = [read(1, &[A, B, A]), read(2, &[B, NONE])];
        assert!(begins_anew(B, &chains));
    }

    #[test]
    fn two_hops_are_not_forgotten() {
        let chains = [read(1, &[A, B, C]), read(2, &[B, NONE]), read(3, &[C, NONE])];
        assert!(is_relieved(A, C, &chains));
        assert!(is_relieved(B, C, &chains), "its jobs of since are elsewhere, too");
        let back = [read(1, &[A, B, C, B])];
        assert!(is_relieved(A, B, &back));
        assert!(begins_anew(C, &back));
        assert!(is_relieved(A, B, &[read(1, &[A, B, A, B])]));
    }

    #[test]
    fn no_clock_says_which_of_two_is_opened() {
        assert!(matches!(has(id(A), &[read(1, &[A]), read(2, &[B, A])]), Has::Several(_)));
        let refused = plan(&taker(A), &[read(1, &[A]), read(2, &[B, A])], "");
        assert_eq!(refused.expect_err("it is a guess").kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_damaged_record_closes_only_the_jobs_that_it_may_name() {
        let damaged = chain(1, &[Some(A), None]);
        assert!(matches!(has(id(B), &[damaged.clone(), read(2, &[B])]), Has::Its(_)));
        assert!(matches!(has(id(A), std::slice::from_ref(&damaged)), Has::Unclear(_)));
        // The next record tells whose it was.
        let mut explained = read(1, &[A, B, C]);
        explained.records.insert(2, Err("damaged".to_owned()));
        for node in [A, B] {
            assert!(is_relieved(node, C, std::slice::from_ref(&explained)));
        }
        assert!(begins_anew(A, &[chain(1, &[None, Some(NONE)])]), "it had no jobs any more");
    }

    #[test]
    fn a_database_that_is_damaged_or_given_up_is_taken_by_its_id() {
        for gone in [chain(1, &[Some(A), None]), read(1, &[A, NONE])] {
            let name = gone.database.to_string();
            let plan = plan(&taker(B), &[gone, read(2, &[B])], &name).expect("a plan");
            let numbers: Vec<_> = plan.records.iter().map(|r| (r.number, r.node)).collect();
            assert_eq!(numbers, [(2, NodeId::NONE), (3, id(B))], "its own is given up first");
        }
    }

    #[test]
    fn what_a_node_opens_is_not_left_unsaid() {
        let chains = [chain(1, &[None]), read(2, &[B])];
        let taker = Taker { current: Some(chains[0].database), ..taker(A) };
        let refused = plan(&taker, &chains, "host-2").expect_err("it may have jobs");
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn another_number_of_shards_is_refused_before_a_record_is_made() {
        let mut two = read(1, &[A]);
        two.records.values_mut().flatten().for_each(|owner| owner.shards = 2);
        let refused = plan(&taker(B), &[two.clone(), read(2, &[B])], "host-1");
        assert_eq!(refused.expect_err("it has two").kind(), ErrorKind::Conflict);
        let taken = plan(&Taker { shards: 2, ..taker(B) }, &[two], "host-1").expect("a plan");
        assert_eq!(taken.records[0].shards, 2);
    }

    #[test]
    fn what_is_its_own_is_taken_without_a_record() {
        let own = plan(&taker(A), &[read(1, &[A])], "").expect("a plan");
        assert_eq!((own.gives_up, own.records), (None, Vec::new()));
        let back = plan(&taker(A), &[read(1, &[A, B, C])], "").expect("a plan");
        assert_eq!((back.records[0].number, back.records[0].before), (4, id(C)));
        assert!(plan(&taker(A), &[read(1, &[B])], "").is_err());
    }
}
