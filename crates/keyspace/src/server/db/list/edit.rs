//! Changes in the middle of a list: LSET, LINSERT, LREM.
//!
//! The ends are what lists are made for; here a chunk is written anew without spare room, and cut
//! where it would become too long. Redis does the same to a node of its quicklist.

use super::{CHUNK_BYTES, Chunk, End, List, framed_bytes, write_framed};
use crate::server::accounts::{Bytes, Dataset};
use allocator_api2::vec::Vec;
use std::ops::Range;
use tallow::In;

impl List {
    /// Puts `element` in place of the one at `index`, which must be there.
    pub(crate) fn set(&mut self, index: usize, element: &[u8]) {
        let (chunk, place) = self.find(index);
        self.splice(chunk, place, element);
    }

    /// Puts `element` before the one at `index`, which must be there.
    pub(crate) fn insert(&mut self, index: usize, element: &[u8]) {
        let (chunk, place) = self.find(index);
        self.splice(chunk, place.start..place.start, element);
        self.len += 1;
    }

    /// Removes elements that are `element`, at most `most` of them, the first ones seen from an
    /// end. Returns how many.
    pub(crate) fn remove_equal(&mut self, end: End, most: usize, element: &[u8]) -> usize {
        let (mut left, mut sparse) = (most, 0);
        for i in 0..self.chunks {
            let at = if end == End::Head { i } else { self.chunks - 1 - i };
            let chunk = self.chunk_mut(at);
            let removed = chunk.remove_equal(end, left, element);
            if removed > 0 && chunk.used().len() < CHUNK_BYTES / 2 {
                chunk.fit();
                sparse += 1;
            }
            left -= removed;
            if left == 0 {
                break;
            }
        }
        self.len -= most - left;
        if sparse * 4 > self.chunks {
            self.join_chunks();
        } else if sparse > 0 {
            self.drop_empty_chunks();
        }
        most - left
    }

    /// A copy.
    pub(crate) fn copied(&self) -> Self {
        let mut copy = Self::new();
        self.iter_from(0).for_each(|element| copy.push(End::Tail, element));
        copy
    }

    /// The chunk of the element at `index`, and where in the chunk's used bytes it lies.
    fn find(&self, index: usize) -> (usize, Range<usize>) {
        let (mut chunk, mut skip) = (0, index);
        while skip >= self.chunk(chunk).count {
            skip -= self.chunk(chunk).count;
            chunk += 1;
        }
        let mut elements = self.chunk(chunk).iter();
        let start = elements.by_ref().take(skip).map(|it| framed_bytes(it.len())).sum();
        let bytes = elements.next().map_or(0, |it| framed_bytes(it.len()));
        (chunk, start..start + bytes)
    }

    /// Puts an element in place of the bytes in `place`, which hold one or none.
    fn splice(&mut self, at: usize, place: Range<usize>, element: &[u8]) {
        let chunk = self.chunk_mut(at);
        let used = chunk.start..chunk.end;
        let replaced = usize::from(!place.is_empty());
        if place.len() == framed_bytes(element.len()) {
            let start = used.start + place.start;
            write_framed(&mut chunk.room[start..start + place.len()], element);
            return;
        }
        let mut framed: Bytes<Dataset> = Vec::new_in(In::NEW);
        framed.resize(framed_bytes(element.len()), 0);
        write_framed(&mut framed, element);
        let (before, rest) = chunk.room[used].split_at(place.start);
        let after = &rest[place.len()..];
        let count_before = count(before);
        let count_after = chunk.count - replaced - count_before;
        let fits = |bytes: usize| bytes + framed.len() <= CHUNK_BYTES;
        let pieces = if fits(before.len() + after.len()) {
            [
                Chunk::of([before, &framed, after], chunk.count - replaced + 1),
                Chunk::new(),
                Chunk::new(),
            ]
        } else if fits(before.len()) {
            [
                Chunk::of([before, &framed, &[]], count_before + 1),
                Chunk::of([after, &[], &[]], count_after),
                Chunk::new(),
            ]
        } else if fits(after.len()) {
            [
                Chunk::of([before, &[], &[]], count_before),
                Chunk::of([&framed, after, &[]], count_after + 1),
                Chunk::new(),
            ]
        } else {
            [
                Chunk::of([before, &[], &[]], count_before),
                Chunk::of([&framed, &[], &[]], 1),
                Chunk::of([after, &[], &[]], count_after),
            ]
        };
        self.replace_chunk(at, pieces);
    }

    /// Puts those of `pieces` that are not empty in place of a chunk.
    fn replace_chunk(&mut self, at: usize, pieces: [Chunk; 3]) {
        let mut pieces = pieces.into_iter().filter(|piece| piece.count > 0);
        if let Some(first) = pieces.next() {
            *self.chunk_mut(at) = first;
        }
        for (i, piece) in pieces.enumerate() {
            self.straighten();
            self.ring.insert(at + 1 + i, piece);
            self.chunks += 1;
        }
    }

    /// Turns the ring so that it begins with the first chunk, and drops places out of use.
    fn straighten(&mut self) {
        self.ring.rotate_left(self.first);
        self.first = 0;
        self.ring.truncate(self.chunks);
    }

    /// Makes one chunk of neighbours that fit into one, and drops those that are empty.
    fn join_chunks(&mut self) {
        self.straighten();
        let old = std::mem::replace(&mut self.ring, Vec::new_in(In::NEW));
        for chunk in old.into_iter().filter(|chunk| chunk.count > 0) {
            match self.ring.last_mut() {
                Some(last) if last.used().len() + chunk.used().len() <= CHUNK_BYTES => {
                    last.append(&chunk);
                }
                _ => self.ring.push(chunk),
            }
        }
        self.ring.shrink_to_fit();
        self.chunks = self.ring.len();
    }

    fn drop_empty_chunks(&mut self) {
        if (0..self.chunks).any(|at| self.chunk(at).count == 0) {
            self.straighten();
            self.ring.retain(|chunk| chunk.count > 0);
            self.chunks = self.ring.len();
        }
    }
}

impl Chunk {
    /// A chunk with these bytes and no room for more.
    fn of(parts: [&[u8]; 3], count: usize) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut room = Vec::with_capacity_in(bytes, In::NEW);
        room.resize(bytes, 0);
        let mut end = 0;
        for part in parts {
            room[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        Self { room, start: 0, end, count }
    }

    /// Gives back the room for more.
    fn fit(&mut self) {
        *self = Self::of([self.used(), &[], &[]], self.count);
    }

    /// Adds another's elements behind its own.
    fn append(&mut self, other: &Self) {
        let bytes = other.used();
        if self.room.len() - self.end < bytes.len() {
            self.grow(End::Tail, bytes.len());
        }
        self.room[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        self.count += other.count;
    }

    /// As [`List::remove_equal`].
    fn remove_equal(&mut self, end: End, most: usize, element: &[u8]) -> usize {
        let matching = self.iter().filter(|it| *it == element).count();
        let removed = matching.min(most);
        if removed == 0 {
            return 0;
        }
        // Which of the matching ones go.
        let gone = if end == End::Head { 0..removed } else { matching - removed..matching };
        let (mut from, mut to, mut met) = (self.start, self.start, 0);
        while from < self.end {
            let (head, length) = super::read_head(&self.room[from..self.end]);
            let bytes = framed_bytes(length);
            let is_match = &self.room[from + head..from + head + length] == element;
            if !(is_match && gone.contains(&met)) {
                self.room.copy_within(from..from + bytes, to);
                to += bytes;
            }
            met += usize::from(is_match);
            from += bytes;
        }
        self.end = to;
        self.count -= removed;
        removed
    }
}

/// How many elements these bytes hold.
fn count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = &bytes[framed_bytes(super::read_head(bytes).1)..];
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_many_chunks_is_joined() {
        for kept_every in [100, 5000] {
            let (mut list, mut kept) = (List::new(), 0);
            for i in 0..100_000 {
                kept += usize::from(i % kept_every == 0);
                let element: &[u8] =
                    if i % kept_every == 0 { b"stays" } else { b"goes: 20 bytes long." };
                list.push(End::Tail, element);
            }
            let all: usize = list.own_blocks().sum();
            assert_eq!(
                list.remove_equal(End::Head, usize::MAX, b"goes: 20 bytes long."),
                100_000 - kept
            );
            let left: usize = list.own_blocks().sum();
            assert!(left <= 3 * kept * framed_bytes(5) + 512, "{left} of {all} for {kept}");
            assert_eq!((list.len(), list.iter_from(0).count()), (kept, kept));
            // In the midst of others that stay, a chunk has no room to spare.
            (0..100).for_each(|_| list.push(End::Tail, &[7; 4000]));
            list.insert(kept + 50, b"goes");
            assert_eq!(list.remove_equal(End::Tail, 1, b"goes"), 1);
            assert_eq!(list.len(), kept + 100);
        }
    }

    #[test]
    fn as_a_vector_would() {
        let (mut list, mut model) = (List::new(), std::vec::Vec::<std::vec::Vec<u8>>::new());
        for i in 0..3000usize {
            let random = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let length = if random % 50 == 0 { 9000 } else { random % 7 * 30 };
            let element = vec![b'a' + (random % 3) as u8; length];
            let at = random % model.len().max(1);
            match random / 8 % 8 {
                _ if model.is_empty() => {
                    list.push(End::Tail, &element);
                    model.push(element);
                }
                0..4 => {
                    list.insert(at, &element);
                    model.insert(at, element);
                }
                4 => {
                    list.push(End::Head, &element);
                    model.insert(0, element);
                }
                5 | 6 => {
                    list.set(at, &element);
                    model[at] = element;
                }
                _ => {
                    let end = if random % 2 == 0 { End::Head } else { End::Tail };
                    let most = 1 + random % 4;
                    let mut removed = 0;
                    let mut places: std::vec::Vec<usize> =
                        (0..model.len()).filter(|at| model[*at] == element).collect();
                    if end == End::Tail {
                        places.reverse();
                    }
                    places.truncate(most);
                    places.sort_unstable();
                    for place in places.into_iter().rev() {
                        model.remove(place);
                        removed += 1;
                    }
                    assert_eq!(list.remove_equal(end, most, &element), removed);
                }
            }
            assert_eq!(list.len(), model.len());
            assert!(list.iter_from(0).eq(model.iter()), "step {i}");
        }
    }
}
