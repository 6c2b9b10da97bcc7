//! Floor 1: bit sets over words, plain and atomic. No `unsafe` here.
//!
//! A [`PageSet`] tells of each page of a segment whether it is in the set; the
//! page heap finds runs in it. The functions on atomic words serve the slabs.

use crate::config::SEGMENT_PAGES;
use crate::sync::{AtomicU64, Ordering};
use core::ops::RangeInclusive;

const WORDS: usize = SEGMENT_PAGES / 64;

/// A set of the pages of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageSet {
    words: [u64; WORDS],
}

/// The mask of `len` bits from bit `from` of a word; `from + len <= 64`.
#[inline]
pub(crate) const fn mask(from: usize, len: usize) -> u64 {
    if len == 0 { 0 } else { (u64::MAX >> (64 - len)) << from }
}

/// `n` rounded up to a multiple of `to`, a power of two that is known at run time only:
/// without a division.
#[inline]
pub(crate) const fn round_up(n: usize, to: usize) -> usize {
    debug_assert!(to.is_power_of_two());
    (n + (to - 1)) & !(to - 1)
}

/// The same; `None` on overflow.
#[inline]
pub(crate) fn checked_round_up(n: usize, to: usize) -> Option<usize> {
    n.checked_add(to - 1).map(|_| round_up(n, to))
}

/// The words that the pages `from..from + len` touch, and the masks of the first and the
/// last one. `len` is not 0.
#[inline]
fn span(from: usize, len: usize) -> (RangeInclusive<usize>, u64, u64) {
    let last = from + len - 1;
    (from / 64..=last / 64, u64::MAX << (from % 64), u64::MAX >> (63 - last % 64))
}

impl PageSet {
    pub(crate) const EMPTY: Self = Self { words: [0; WORDS] };

    /// Calls `f(word, mask)` for each word that `from..from + len` touches.
    #[inline]
    fn change(&mut self, from: usize, len: usize, mut f: impl FnMut(&mut u64, u64)) {
        if len == 0 {
            return;
        }
        let (words, head, tail) = span(from, len);
        match &mut self.words[words] {
            [] => {}
            [only] => f(only, head & tail),
            [first, between @ .., last] => {
                f(first, head);
                between.iter_mut().for_each(|word| f(word, u64::MAX));
                f(last, tail);
            }
        }
    }

    pub(crate) fn insert(&mut self, from: usize, len: usize) {
        self.change(from, len, |word, mask| *word |= mask);
    }

    pub(crate) fn remove(&mut self, from: usize, len: usize) {
        self.change(from, len, |word, mask| *word &= !mask);
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Pages of `from..from + len` that are in the set.
    pub(crate) fn count_in(&self, from: usize, len: usize) -> usize {
        if len == 0 {
            return 0;
        }
        let (words, head, tail) = span(from, len);
        let count = |word: u64| word.count_ones() as usize;
        match &self.words[words] {
            [] => 0,
            [only] => count(only & head & tail),
            [first, between @ .., last] => {
                let between: usize = between.iter().copied().map(count).sum();
                count(first & head) + between + count(last & tail)
            }
        }
    }

    pub(crate) fn contains_all(&self, from: usize, len: usize) -> bool {
        from + len <= SEGMENT_PAGES && self.count_in(from, len) == len
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut out = Self::EMPTY;
        for ((o, a), b) in out.words.iter_mut().zip(&self.words).zip(&other.words) {
            *o = a & b;
        }
        out
    }

    /// First page at or after `from` that is in the set.
    pub(crate) fn next_set(&self, from: usize) -> Option<usize> {
        self.next(from, 0)
    }

    /// First page at or after `from` that is not in the set, or the end.
    pub(crate) fn next_clear(&self, from: usize) -> usize {
        self.next(from, u64::MAX).unwrap_or(SEGMENT_PAGES)
    }

    fn next(&self, from: usize, flip: u64) -> Option<usize> {
        if from >= SEGMENT_PAGES {
            return None;
        }
        let mut w = from / 64;
        let mut word = (self.words[w] ^ flip) & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                return Some(w * 64 + word.trailing_zeros() as usize);
            }
            w += 1;
            if w == WORDS {
                return None;
            }
            word = self.words[w] ^ flip;
        }
    }

    /// The run of pages in the set that starts at or after `from`, as
    /// `(start, length)`.
    pub(crate) fn next_run(&self, from: usize) -> Option<(usize, usize)> {
        let start = self.next_set(from)?;
        Some((start, self.next_clear(start) - start))
    }

    /// The first run of at least `len` pages whose start is a multiple of
    /// `align`, and the longest run seen on the way.
    pub(crate) fn find_run(&self, len: usize, align: usize) -> (Option<usize>, usize) {
        let (mut at, mut longest) = (0, 0);
        while let Some((start, run)) = self.next_run(at) {
            let first = round_up(start, align);
            if first + len <= start + run {
                return (Some(first), longest.max(run));
            }
            longest = longest.max(run);
            at = start + run;
        }
        (None, longest)
    }

    /// The whole run in the set around the page `at`, as `(start, length)`.
    pub(crate) fn run_around(&self, at: usize) -> (usize, usize) {
        let end = self.next_clear(at);
        let mut w = at / 64;
        let mut word = !self.words[w] & mask(0, at % 64);
        let start = loop {
            if word != 0 {
                break w * 64 + 64 - word.leading_zeros() as usize;
            }
            if w == 0 {
                break 0;
            }
            w -= 1;
            word = !self.words[w];
        };
        (start, end - start)
    }
}

/// Takes up to `want` set bits out of `word` by one atomic operation and
/// returns them, from bit `turn % 64` on, round about. A concurrent taker may leave
/// fewer, down to none.
///
/// `Acquire` on success pairs with the `Release` of the `fetch_or` that put
/// the bits back: what the last owner wrote into a region happens before the
/// next owner's use of it.
#[inline]
pub(crate) fn take_bits(word: &AtomicU64, want: u32, turn: u32, take: Ordering) -> u64 {
    // Relaxed: a guess only; the atomic operation below decides.
    let seen = word.load(Ordering::Relaxed);
    if seen == 0 {
        return 0;
    }
    let chosen = if seen.count_ones() <= want {
        seen
    } else {
        lowest_bits(seen.rotate_right(turn), want).rotate_left(turn)
    };
    word.fetch_and(!chosen, take) & chosen
}

/// The lowest `n` set bits of `word`, which has at least `n`.
#[inline]
pub(crate) fn lowest_bits(word: u64, n: u32) -> u64 {
    let mut rest = word;
    for _ in 0..n {
        rest &= rest.wrapping_sub(1);
    }
    word ^ rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn model(runs: &[(u16, u16)]) -> (PageSet, Vec<bool>) {
        let (mut set, mut plain) = (PageSet::EMPTY, vec![false; SEGMENT_PAGES]);
        for (i, &(from, len)) in runs.iter().enumerate() {
            let from = usize::from(from) % SEGMENT_PAGES;
            let len = usize::from(len) % (SEGMENT_PAGES - from);
            if i % 3 == 2 {
                set.remove(from, len);
            } else {
                set.insert(from, len);
            }
            plain[from..from + len].fill(i % 3 != 2);
        }
        (set, plain)
    }

    quickcheck! {
        fn page_set_agrees_with_a_plain_list(runs: Vec<(u16, u16)>, len: u16, lg_align: u8) -> bool {
            let (set, plain) = model(&runs);
            let len = usize::from(len) % 200 + 1;
            let align = 1 << (lg_align % 6);
            let expected = (0..=SEGMENT_PAGES - len)
                .filter(|at| at % align == 0)
                .find(|&at| plain[at..at + len].iter().all(|&b| b));
            let (found, longest) = set.find_run(len, align);
            let true_longest = plain.split(|&b| !b).map(<[bool]>::len).max().unwrap_or(0);
            set.count() == plain.iter().filter(|&&b| b).count()
                && found == expected
                && (found.is_some() || longest == true_longest)
        }

        fn counting_and_removing_agree_with_it(runs: Vec<(u16, u16)>, from: u16, len: u16) -> bool {
            let (mut set, mut plain) = model(&runs);
            let from = usize::from(from) % SEGMENT_PAGES;
            let len = usize::from(len) % (SEGMENT_PAGES - from + 1);
            let there = plain[from..from + len].iter().filter(|&&b| b).count();
            plain[from..from + len].fill(false);
            let counted = set.count_in(from, len);
            set.remove(from, len);
            counted == there
                && (0..SEGMENT_PAGES).all(|page| (set.count_in(page, 1) == 1) == plain[page])
        }

        fn run_around_is_maximal(runs: Vec<(u16, u16)>, at: u16) -> bool {
            let (set, plain) = model(&runs);
            let at = usize::from(at) % SEGMENT_PAGES;
            if !plain[at] {
                return true;
            }
            let (start, len) = set.run_around(at);
            plain[start..start + len].iter().all(|&b| b)
                && (start == 0 || !plain[start - 1])
                && (start + len == SEGMENT_PAGES || !plain[start + len])
                && (start..start + len).contains(&at)
        }

        fn lowest_bits_are_lowest(word: u64, n: u32) -> bool {
            let n = n % (word.count_ones() + 1);
            let low = lowest_bits(word, n);
            let rest = word ^ low;
            low & word == low && low.count_ones() == n
                && (low == 0 || rest == 0 || low.ilog2() < rest.trailing_zeros())
        }
    }

    #[test]
    fn take_bits_takes_at_most_what_is_wanted() {
        let word = AtomicU64::new(0b1011_0000);
        assert_eq!(take_bits(&word, 2, 0, Ordering::Acquire), 0b0011_0000);
        let turned = AtomicU64::new(0b1011_0001);
        assert_eq!(take_bits(&turned, 2, 64 + 5, Ordering::Acquire), 0b1010_0000);
        assert_eq!(take_bits(&word, 9, 0, Ordering::Acquire), 0b1000_0000);
        assert_eq!(take_bits(&word, 9, 0, Ordering::Acquire), 0);
    }
}
