//! How a stream of bytes arrives: in pieces, as sockets hand them out.

/// Pieces of a stream. The first byte of an input says how it is split: up to 127, all pieces are so
/// long (at least one byte); above, they vary, and always in the same way.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<'a> {
    rest: &'a [u8],
    length: usize,
    /// What the next piece's length is made of; `None` if all are alike.
    seed: Option<u32>,
}

impl<'a> Chunks<'a> {
    /// The pieces, and the stream as a whole.
    pub(crate) fn of(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (first, rest) = input.split_first()?;
        let seed = (*first > 127).then_some(u32::from(*first));
        let length = usize::from(*first).max(1);
        Some((Self { rest, length, seed }, rest))
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.next_up_to(usize::MAX)
    }
}

impl<'a> Chunks<'a> {
    /// The next piece, or as much of it as the reader takes.
    pub(crate) fn next_up_to(&mut self, length_max: usize) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(seed) = &mut self.seed {
            // Numerical Recipes' generator: any will do.
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = *seed >> 24;
            // Mostly a few bytes: that is where lengths and words are torn.
            self.length = 1 + (length as usize & if length > 192 { 63 } else { 7 });
        }
        let length = self.length.min(length_max).min(self.rest.len());
        let (chunk, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(chunk)
    }
}
