//! A map whose keys are transactions of one world: few small numbers.

/// As a `BTreeMap<u32, T>`, but the number is the place.
pub(crate) struct ByTx<T> {
    places: Vec<Option<T>>,
    len: usize,
}

impl<T> ByTx<T> {
    pub(crate) fn new(transactions: usize) -> Self {
        Self { places: (0..transactions).map(|_| None).collect(), len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, tx: u32) -> Option<&T> {
        self.places[tx as usize].as_ref()
    }

    pub(crate) fn get_mut(&mut self, tx: u32) -> Option<&mut T> {
        self.places[tx as usize].as_mut()
    }

    pub(crate) fn insert(&mut self, tx: u32, value: T) {
        let before = self.places[tx as usize].replace(value);
        self.len += usize::from(before.is_none());
    }

    pub(crate) fn remove(&mut self, tx: u32) {
        let before = self.places[tx as usize].take();
        self.len -= usize::from(before.is_some());
    }

    pub(crate) fn clear(&mut self) {
        self.places.fill_with(|| None);
        self.len = 0;
    }

    /// Returns what is there, in the order of its numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(tx, value)| Some((tx, value.as_ref()?)))
    }
}

impl<T: Default> ByTx<T> {
    pub(crate) fn get_or_default(&mut self, tx: u32) -> &mut T {
        let place = &mut self.places[tx as usize];
        self.len += usize::from(place.is_none());
        place.get_or_insert_default()
    }
}
