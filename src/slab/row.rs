//! Rows of regions: neighbours within one word of a slab's bit set. Programs that allocate
//! many blocks and free them in that order have hardly anything else, and whole rows are
//! handled with an instruction or two for each region.

/// Neighbours that are handed out together, upwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) first: *mut u8,
    pub(crate) region_bytes: usize,
    /// At least one.
    pub(crate) n: usize,
}

impl Row {
    #[cfg(loom)]
    pub(crate) fn one(region: *mut u8) -> Row {
        Row { first: region, region_bytes: 0, n: 1 }
    }

    #[inline(always)]
    pub(crate) fn last(self) -> *mut u8 {
        self.first.wrapping_add((self.n - 1) * self.region_bytes)
    }

    /// Its regions, upwards.
    #[inline(always)]
    pub(crate) fn regions(self) -> impl Iterator<Item = *mut u8> {
        (0..self.n).map(move |i| self.first.wrapping_add(i * self.region_bytes))
    }

    /// Takes the first off; the others, if there are any.
    #[inline(always)]
    pub(crate) fn split_first(self) -> (*mut u8, Option<Row>) {
        let first = self.first.wrapping_add(self.region_bytes);
        (self.first, (self.n > 1).then_some(Row { first, n: self.n - 1, ..self }))
    }
}

/// How many of `regions` lie one behind the other, `step` bytes apart and the first of them
/// as far behind `before`.
#[inline(always)]
pub(super) fn follow(before: usize, step: usize, regions: &[*mut u8]) -> usize {
    /// Compared without a branch for each.
    const TOGETHER: usize = 8;
    let expected = |n: usize| before.wrapping_add(step.wrapping_mul(n + 1));
    let mut n = 0;
    for some in regions.chunks_exact(TOGETHER) {
        let at = expected(n);
        let differ =
            |(i, region): (usize, &*mut u8)| region.addr() ^ at.wrapping_add(step.wrapping_mul(i));
        if some.iter().enumerate().map(differ).fold(0, |all, it| all | it) != 0 {
            break;
        }
        n += TOGETHER;
    }
    let follows = |(i, region): &(usize, &*mut u8)| region.addr() == expected(n + i);
    n + regions[n..].iter().take(TOGETHER).enumerate().take_while(follows).count()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr;

    /// Rows of every length up to a word's, that end or go on elsewhere after each of their
    /// regions, upwards and downwards.
    #[test]
    fn rows_end_where_they_end() {
        const FIRST: usize = 1 << 20;
        for (step, len) in
            [48, 48_usize.wrapping_neg()].into_iter().flat_map(|s| (0..64).map(move |n| (s, n)))
        {
            let at = |n: usize| FIRST.wrapping_add(step.wrapping_mul(n + 1));
            for breaks in 0..=len {
                for by in [step, 8, FIRST] {
                    let address = |n| if n == breaks { at(n).wrapping_add(by) } else { at(n) };
                    let regions: Vec<_> =
                        (0..len).map(|n| ptr::without_provenance_mut(address(n))).collect();
                    assert_eq!(follow(FIRST, step, &regions), breaks, "{len} by {by}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_taken_apart() {
        let first = ptr::without_provenance_mut(1 << 20);
        let row = Row { first, region_bytes: 48, n: 9 };
        let addresses = |row: Row| row.regions().map(<*mut u8>::addr).collect::<Vec<_>>();
        assert_eq!(addresses(row).last(), Some(&row.last().addr()));
        let (one, rest) = row.split_first();
        let rest = rest.expect("eight more");
        assert_eq!((one, addresses(rest)), (first, addresses(row)[1..].to_vec()));
        assert!(Row { n: 1, ..row }.split_first().1.is_none());
    }
}
