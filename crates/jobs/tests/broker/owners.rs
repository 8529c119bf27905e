//! The owner of a jobs database, explored exhaustively in small worlds. Nodes start, crash between
//! any two records, take over databases of their own or of others, and one record is damaged. The
//! program's own decisions run in it (`skerry_jobs::chain`).
//!
//! Must hold: a database with jobs is never given up, and no node has two. A node begins a new
//! database only if nothing that it acknowledged is elsewhere, unless an earlier holder has taken
//! these jobs back. And it does begin one then.

use skerry_core::id::NodeId;
use skerry_jobs::chain::{self, Chain, Has, Taker};
use skerry_jobs::owner::{DatabaseId, Owner};
use std::collections::HashSet;

/// No node.
const NONE: u8 = 0;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Life {
    Down,
    /// The node runs, and its jobs are closed.
    Closed,
    Open(usize),
    /// The node's jobs are closed for a take-over, with these records left to make.
    Taking(Vec<Record>),
}

/// One record: the database, its number, the node, and the node before.
type Record = (usize, usize, u8, u8);

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Database {
    /// The nodes that the records name.
    nodes: Vec<u8>,
    /// The nodes before, by the records.
    before: Vec<u8>,
    /// A bit for each node that has acknowledged jobs which have not ended.
    jobs: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    lives: Vec<Life>,
    databases: Vec<Database>,
    /// The record that can't be read: its database and its index.
    damaged: Option<(usize, usize)>,
}

/// Bounds on the events in a world.
#[derive(Clone, Copy)]
struct Bounds {
    nodes: usize,
    records: usize,
    is_damaged: bool,
}

fn id(of: u8) -> NodeId {
    if of == NONE { NodeId::NONE } else { NodeId([of; 16]) }
}

impl World {
    fn new(nodes: usize) -> Self {
        Self { lives: vec![Life::Down; nodes], databases: Vec::new(), damaged: None }
    }

    fn records(&self) -> usize {
        self.databases.iter().map(|database| database.nodes.len()).sum()
    }

    fn chains(&self) -> Vec<Chain> {
        (0..self.databases.len()).map(|at| self.chain(at)).collect()
    }

    fn chain(&self, at: usize) -> Chain {
        let named = &self.databases[at];
        let database = DatabaseId(NodeId([at as u8 + 1; 16]));
        let records = named.nodes.iter().zip(&named.before).enumerate();
        let records = records.map(|(place, (node, before))| {
            let number = place as u64 + 1;
            let (node, before) = (id(*node), id(*before));
            let host = String::new();
            let owner = Owner { database, number, node, before, taken_ms: 0, shards: 1, host };
            let is_damaged = self.damaged == Some((at, place));
            (number, if is_damaged { Err("damaged".to_owned()) } else { Ok(owner) })
        });
        Chain { database, records: records.collect() }
    }

    fn has(&self, database: usize, node: u8) -> bool {
        self.databases[database].nodes.last() == Some(&node)
    }

    /// True if the newest record can be read.
    fn is_read(&self, database: usize) -> bool {
        let newest = self.databases[database].nodes.len() - 1;
        self.damaged != Some((database, newest))
    }

    /// Nodes begin in their order: which is the first makes no difference.
    fn has_turn(&self, node: u8) -> bool {
        node == 1 || self.databases.iter().any(|database| database.nodes.contains(&(node - 1)))
    }

    /// Lets a node find its database.
    fn look(mut self, node: u8) -> Self {
        let life = match chain::has(id(node), &self.chains()) {
            Has::Its(owner) => Life::Open(owner.database.0.0[0] as usize - 1),
            Has::Several(_) => panic!("node {node} has two: {:?}", self.named()),
            Has::WasRelieved(by) => {
                self.check_relieved(node, by.database.0.0[0] as usize - 1);
                Life::Closed
            }
            Has::Unclear(_) => {
                assert!(self.damaged.is_some(), "all can be read: {:?}", self.named());
                Life::Closed
            }
            Has::Nothing(_) => {
                self.check_anew(node);
                self.databases.push(Database { nodes: vec![node], before: vec![NONE], jobs: 0 });
                Life::Open(self.databases.len() - 1)
            }
        };
        self.lives[node as usize - 1] = life;
        self
    }

    fn named(&self) -> Vec<&Vec<u8>> {
        self.databases.iter().map(|database| &database.nodes).collect()
    }

    /// Checks that the node's acknowledged jobs are where they were before the node took them.
    fn check_anew(&self, node: u8) {
        for database in &self.databases {
            let Some(last) = database.nodes.iter().rposition(|named| *named == node) else {
                continue;
            };
            let (until, since) = database.nodes.split_at(last);
            let was_taken_back = since[1..].iter().any(|taker| until.contains(taker));
            assert!(
                database.jobs & (1 << node) == 0 || was_taken_back,
                "node {node} begins anew, and its jobs are elsewhere: {:?}",
                self.named()
            );
        }
    }

    /// A node that took a database, and had it taken back, is relieved of nothing.
    fn check_relieved(&self, node: u8, by: usize) {
        if self.damaged.is_some() {
            // A node stays closed in vain rather than begin anew: the record may be the one that
            // gave the database up.
            return;
        }
        let all = &self.databases[by].nodes;
        let begin = all.iter().rposition(|named| *named == NONE).map_or(0, |at| at + 1);
        let since = &all[begin..];
        let first = since.iter().position(|named| *named == node);
        let first = first.expect("it was the node's");
        assert!(!since[..first].contains(&since[since.len() - 1]));
    }

    fn write(mut self, node: u8) -> Self {
        let Life::Taking(left) = &mut self.lives[node as usize - 1] else { unreachable!() };
        if left.is_empty() {
            return self.look(node);
        }
        let (database, number, named, before) = left.remove(0);
        let database = &mut self.databases[database];
        if number != database.nodes.len() + 1 {
            // Another node was faster.
            return self.look(node);
        }
        database.nodes.push(named);
        database.before.push(before);
        self
    }

    fn take_over(&self, node: u8, database: usize) -> Option<Self> {
        let chains = self.chains();
        let current = match self.lives[node as usize - 1] {
            Life::Open(at) => Some(chains[at].database),
            _ => None,
        };
        let taker = Taker { node: id(node), host: String::new(), shards: 1, now_ms: 0, current };
        let named = chains[database].database.to_string();
        let plan = chain::plan(&taker, &chains, &named).ok()?;
        if let Some(given_up) = plan.gives_up {
            let own = given_up.0.0[0] as usize - 1;
            let is_idle = self.databases[own].jobs == 0;
            if self.lives[node as usize - 1] != Life::Open(own) || !is_idle {
                return None;
            }
        }
        let records = plan.records.iter().map(|owner| {
            let database = owner.database.0.0[0] as usize - 1;
            (database, owner.number as usize, owner.node.0[0], owner.before.0[0])
        });
        let mut next = self.clone();
        next.lives[node as usize - 1] = Life::Taking(records.collect());
        Some(next)
    }

    fn next_of(&self, node: u8, bounds: Bounds, out: &mut Vec<Self>) {
        let life = &self.lives[node as usize - 1];
        let mut down = self.clone();
        down.lives[node as usize - 1] = Life::Down;
        let has_room = self.records() < bounds.records;
        if *life != Life::Down {
            out.push(down);
        }
        match life {
            Life::Down | Life::Closed if has_room && self.has_turn(node) => {
                out.push(self.clone().look(node))
            }
            Life::Taking(_) if has_room => out.push(self.clone().write(node)),
            // SlateDB fences the node that was relieved.
            Life::Open(at) if self.has(*at, node) => {
                for jobs in [self.databases[*at].jobs | 1 << node, 0] {
                    let mut next = self.clone();
                    next.databases[*at].jobs = jobs;
                    out.push(next);
                }
            }
            Life::Open(_) if has_room => out.push(self.clone().look(node)),
            _ => {}
        }
        if matches!(life, Life::Open(_) | Life::Closed) {
            out.extend((0..self.databases.len()).filter_map(|at| self.take_over(node, at)));
        }
    }

    fn next(&self, bounds: Bounds) -> Vec<Self> {
        let mut out = Vec::new();
        for node in 0..self.lives.len() {
            self.next_of(node as u8 + 1, bounds, &mut out);
        }
        if bounds.is_damaged && self.damaged.is_none() {
            for (at, database) in self.databases.iter().enumerate() {
                out.extend((0..database.nodes.len()).map(|place| {
                    let damaged = Some((at, place));
                    Self { damaged, ..self.clone() }
                }));
            }
        }
        out
    }

    fn check(&self) {
        for database in &self.databases {
            let is_given_up = database.nodes.last() == Some(&NONE);
            assert!(!is_given_up || database.jobs == 0, "jobs are given up: {:?}", self.named());
        }
        for node in 1..=self.lives.len() as u8 {
            let all = 0..self.databases.len();
            let has = all.filter(|at| self.has(*at, node) && self.is_read(*at)).count();
            assert!(has <= 1, "node {node} has {has} databases: {:?}", self.named());
        }
    }
}

/// Explores all worlds that can come about; gives their number.
fn explore(bounds: Bounds) -> usize {
    let mut seen = HashSet::from([World::new(bounds.nodes)]);
    let mut left: Vec<World> = seen.iter().cloned().collect();
    while let Some(world) = left.pop() {
        world.check();
        for next in world.next(bounds) {
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    seen.len()
}

#[test]
fn two_nodes_take_over_and_back() {
    let seen = explore(Bounds { nodes: 2, records: 8, is_damaged: false });
    assert!(seen > 1_000, "{seen} worlds");
}

#[test]
fn three_nodes_take_over_and_back() {
    let seen = explore(Bounds { nodes: 3, records: 7, is_damaged: false });
    assert!(seen > 10_000, "{seen} worlds");
}

#[test]
fn a_record_is_damaged_at_any_time() {
    let seen = explore(Bounds { nodes: 2, records: 7, is_damaged: true });
    assert!(seen > 10_000, "{seen} worlds");
}
