//! Who waits in one flow: sources in turn, each in the order of arrival.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// The line of a flow.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: HashMap<IpAddr, VecDeque<(u64, T)>>,
    /// The sources that wait, next first.
    sources: VecDeque<IpAddr>,
    all: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), sources: VecDeque::new(), all: 0 }
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all == 0
    }

    pub(super) fn push(&mut self, source: IpAddr, number: u64, ticket: T) {
        let own = self.waiting.entry(source).or_default();
        if own.is_empty() {
            self.sources.push_back(source);
        }
        own.push_back((number, ticket));
        self.all += 1;
    }

    /// The oldest of the source whose turn it is.
    pub(super) fn next(&mut self) -> Option<(IpAddr, T)> {
        let source = *self.sources.front()?;
        let (_, ticket) = self.take(source, VecDeque::pop_front)?;
        if self.sources.front() == Some(&source) {
            self.sources.rotate_left(1);
        }
        Some((source, ticket))
    }

    /// The newest of the source with the most.
    pub(super) fn put_out(&mut self) -> Option<T> {
        let most = self.waiting.iter().max_by_key(|(_, own)| own.len());
        let source = *most?.0;
        self.take(source, VecDeque::pop_back).map(|(_, ticket)| ticket)
    }

    /// Whether this ticket was there.
    pub(super) fn leave(&mut self, source: IpAddr, number: u64) -> bool {
        let remove = |own: &mut VecDeque<(u64, T)>| {
            let place = own.iter().position(|(found, _)| *found == number)?;
            own.remove(place)
        };
        self.take(source, remove).is_some()
    }

    fn take(
        &mut self,
        source: IpAddr,
        take: impl FnOnce(&mut VecDeque<(u64, T)>) -> Option<(u64, T)>,
    ) -> Option<(u64, T)> {
        let own = self.waiting.get_mut(&source)?;
        let taken = take(own)?;
        self.all -= 1;
        if own.is_empty() {
            self.waiting.remove(&source);
            self.sources.retain(|waiting| *waiting != source);
        }
        Some(taken)
    }
}
