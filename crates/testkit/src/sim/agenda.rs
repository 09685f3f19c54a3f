//! What is going to happen: earliest first, and of one moment what was planned first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::world::Ev;

#[derive(Default)]
pub(crate) struct Agenda {
    /// The heap moves what it holds about, so it holds small keys; events stay at their places.
    heap: BinaryHeap<Reverse<Key>>,
    places: Vec<Option<Ev>>,
    free: Vec<u32>,
    /// Most of all events, but a few at any time: the latest first.
    claims: Vec<(Key, Claim)>,
    planned: u32,
}

/// A server looks for what is due and nobody works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) s: usize,
    pub(crate) inc: u32,
}

/// The time, a count of what was planned, and the event's place, in one number that is compared
/// as a whole. Two events never share a count.
type Key = u128;

impl Agenda {
    /// Plans an event for a time.
    pub(crate) fn push(&mut self, at: u64, ev: Ev) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        self.places[place as usize] = Some(ev);
        let key = self.next_key(at) | u128::from(place);
        self.heap.push(Reverse(key));
    }

    /// Plans a claim for a time.
    pub(crate) fn push_claim(&mut self, at: u64, claim: Claim) {
        let key = self.next_key(at);
        let later = self.claims.iter().take_while(|(other, _)| *other > key).count();
        self.claims.insert(later, (key, claim));
    }

    /// Takes the next event and its time, if it is a claim.
    pub(crate) fn pop_claim(&mut self) -> Option<(u64, Claim)> {
        let other = self.heap.peek().map_or(Key::MAX, |Reverse(key)| *key);
        let (key, claim) = self.claims.pop_if(|(key, _)| *key < other)?;
        Some(((key >> 64) as u64, claim))
    }

    /// Takes the next event that is not a claim, and its time.
    pub(crate) fn pop(&mut self) -> Option<(u64, Ev)> {
        let Reverse(key) = self.heap.pop()?;
        let place = key as u32;
        let ev = self.places[place as usize].take()?;
        self.free.push(place);
        Some(((key >> 64) as u64, ev))
    }

    fn next_key(&mut self, at: u64) -> Key {
        self.planned += 1;
        u128::from(at) << 64 | u128::from(self.planned) << 32
    }
}
