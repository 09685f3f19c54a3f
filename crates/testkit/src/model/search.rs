//! Every reachable state, breadth first, and from each of them a way to an end.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::invariants::Violation;

/// What can be searched.
pub trait Machine {
    /// A state.
    type State: Clone + Hash;

    /// Returns where it begins.
    fn first(&self) -> Self::State;

    /// Hands every state that may follow to `found`, with what led there.
    fn next(&self, state: &Self::State, found: &mut dyn FnMut(String, Self::State));

    /// Checks what must hold in every state.
    ///
    /// # Errors
    ///
    /// What does not hold.
    fn check(&self, state: &Self::State) -> Result<(), Violation>;

    /// Returns whether the transaction has come to its end.
    fn is_final(&self, state: &Self::State) -> bool;
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub struct Searched {
    /// Different states.
    pub states: usize,
    /// Transitions between them.
    pub transitions: usize,
    /// What does not hold, and the shortest story that leads there.
    pub violation: Option<(Violation, Vec<String>)>,
    /// False if there were more states than allowed.
    pub complete: bool,
}

/// Searches breadth first, up to `states_max` states; stops at the first violation.
///
/// States are told apart by 64 bits of hash: among ten million the chance that two share one, and
/// that something is overlooked because of it, is about one in 400,000.
pub fn search<M: Machine>(machine: &M, states_max: usize) -> Searched {
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let mut parents: Vec<u32> = vec![0];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut ends: Vec<u32> = Vec::new();
    let mut searched = Searched { complete: true, ..Searched::default() };
    let first = machine.first();
    seen.insert(fingerprint(&first), 0);
    let mut layer = vec![(0u32, first)];
    while !layer.is_empty() {
        let mut later = Vec::new();
        for (number, state) in &layer {
            if let Err(violation) = machine.check(state) {
                let story = story(machine, &parents, *number);
                searched.violation = Some((violation, story));
                searched.states = parents.len();
                return searched;
            }
            if machine.is_final(state) {
                ends.push(*number);
            }
            machine.next(state, &mut |_, next| {
                searched.transitions += 1;
                let fresh = u32::try_from(parents.len()).unwrap_or(u32::MAX);
                let known = *seen.entry(fingerprint(&next)).or_insert(fresh);
                if known == fresh {
                    parents.push(*number);
                    later.push((fresh, next));
                }
                edges.push((known, *number));
            });
            if parents.len() > states_max {
                searched.complete = false;
                searched.states = parents.len();
                return searched;
            }
        }
        layer = later;
    }
    searched.states = parents.len();
    if let Some(stuck) = stuck(parents.len(), edges, ends) {
        let text = "from here no end can be reached".to_owned();
        let violation = Violation { invariant: "I9", text };
        searched.violation = Some((violation, story(machine, &parents, stuck)));
    }
    searched
}

fn fingerprint(state: &impl Hash) -> u64 {
    // Keys are fixed: the same states have the same numbers in every run.
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Returns a state from which no end can be reached, walking all transitions backwards from them.
fn stuck(count: usize, mut edges: Vec<(u32, u32)>, mut open: Vec<u32>) -> Option<u32> {
    edges.sort_unstable();
    edges.dedup();
    let mut reached = vec![false; count];
    for number in &open {
        reached[*number as usize] = true;
    }
    while let Some(number) = open.pop() {
        let from = edges.partition_point(|(to, _)| *to < number);
        for (_, before) in edges[from..].iter().take_while(|(to, _)| *to == number) {
            if !std::mem::replace(&mut reached[*before as usize], true) {
                open.push(*before);
            }
        }
    }
    let number = reached.iter().position(|reached| !reached)?;
    u32::try_from(number).ok()
}

/// Plays the shortest way to a state again, to tell it.
fn story<M: Machine>(machine: &M, parents: &[u32], number: u32) -> Vec<String> {
    let mut path = vec![number];
    let mut at = number;
    while at != 0 {
        at = parents[at as usize];
        path.push(at);
    }
    // Numbers were given in the order of discovery: the same walk gives them again.
    let mut told = Vec::new();
    let mut state = machine.first();
    let goal = path.len();
    let mut prints = Vec::with_capacity(goal);
    prints.push(fingerprint(&state));
    let mut seen: HashMap<u64, u32> = HashMap::from([(prints[0], 0)]);
    let mut layer = vec![(0u32, state.clone())];
    let mut by_number: HashMap<u32, u64> = HashMap::from([(0, prints[0])]);
    let mut fresh = 1u32;
    'search: while !layer.is_empty() {
        let mut later = Vec::new();
        for (_, from) in &layer {
            machine.next(from, &mut |_, next| {
                let print = fingerprint(&next);
                if seen.insert(print, fresh).is_none() {
                    by_number.insert(fresh, print);
                    later.push((fresh, next));
                    fresh += 1;
                }
            });
            if fresh > number {
                break 'search;
            }
        }
        layer = later;
    }
    for step in path.iter().rev().skip(1) {
        let Some(print) = by_number.get(step) else { break };
        let mut found = None;
        machine.next(&state, &mut |what, next| {
            if found.is_none() && fingerprint(&next) == *print {
                found = Some((what, next));
            }
        });
        let Some((what, next)) = found else { break };
        told.push(what);
        state = next;
    }
    told
}
