//! Values under small numbers that are used again.

/// Values of a kind, each under a number that it keeps as long as it is here. Grows by pieces, so
/// that a growing pool never needs twice its memory.
#[derive(Debug)]
pub(super) struct Pool<T> {
    pieces: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
}

const PIECE: usize = 1024;

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Pool<T> {
    /// Takes a value. Gives its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(at) = self.free.pop() {
            self.pieces[at as usize / PIECE][at as usize % PIECE] = Some(value);
            return at;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let above = (self.pieces.len() - 1) * PIECE;
        let piece = self.pieces.last_mut().expect("there is one");
        piece.push(Some(value));
        u32::try_from(above + piece.len() - 1).expect("fewer than 2^32 values")
    }

    /// Gives a value back. From now on its number may be another's.
    pub(super) fn remove(&mut self, at: u32) -> T {
        self.len -= 1;
        self.free.push(at);
        self.pieces[at as usize / PIECE][at as usize % PIECE].take().expect("a number in use")
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten().flatten()
    }

    /// The value, if the number is in use.
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.pieces.get(at as usize / PIECE)?.get(at as usize % PIECE)?.as_ref()
    }
}

impl<T> std::ops::Index<u32> for Pool<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.pieces[at as usize / PIECE][at as usize % PIECE].as_ref().expect("a number in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.pieces[at as usize / PIECE][at as usize % PIECE].as_mut().expect("a number in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut pool = Pool::default();
        let numbers: Vec<u32> = (0..3000).map(|n| pool.insert(n)).collect();
        assert_eq!((numbers[2999], pool[1500]), (2999, 1500));
        assert_eq!((pool.remove(7), pool.len()), (7, 2999));
        assert_eq!(pool.iter().count(), 2999);
        assert_eq!(pool.insert(4000), 7);
        assert_eq!((pool.get(7), pool.get(5000)), (Some(&4000), None));
    }
}
