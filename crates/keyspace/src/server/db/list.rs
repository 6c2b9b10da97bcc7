//! Lists: elements in chunks of up to 8 KiB, the chunks in a ring.
//!
//! ```text
//!   ring:   | chunk | chunk | ... |          first and last are full or filling
//!   chunk:  | room | len data len | len data len | ... | room |
//! ```
//! The length stands before and behind each element, so a chunk is read from both ends. Room for
//! more is kept at the end where elements are added, so that adding one moves no others (Redis's
//! listpack moves the whole chunk to add at its head).

mod edit;

use crate::server::accounts::{Bytes, Dataset};
use allocator_api2::vec::Vec;
use tallow::In;
use tallow::defrag::{Mover, Relocate};

/// Elements go into a chunk of their own above this, as with `list-max-listpack-size -2`.
const CHUNK_BYTES: usize = 8 * 1024;
const MIN_CHUNK_BYTES: usize = 64;
/// So many places of a ring are not given back.
const KEPT_PLACES: usize = 16;
/// Lengths from here on take five bytes instead of one.
const LONG: u8 = 255;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The left one.
    Head,
    /// The right one.
    Tail,
}

/// A list.
#[derive(Debug)]
pub(crate) struct List {
    /// A ring: the chunk `i` is at `(first + i) % len`. Places out of use hold empty chunks.
    ring: Vec<Chunk, In<Dataset>>,
    first: usize,
    chunks: usize,
    len: usize,
    /// The number of the first chunk: each keeps its own while others come and go at the ends.
    number: u32,
}

/// Elements one after the other, with room before and behind.
#[derive(Debug)]
struct Chunk {
    room: Bytes<Dataset>,
    start: usize,
    end: usize,
    count: usize,
}

impl List {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { ring: Vec::new_in(In::NEW), first: 0, chunks: 0, len: 0, number: 0 }
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Blocks it consists of.
    pub(crate) fn block_count(&self) -> usize {
        1 + self.chunks
    }

    /// Bytes of each block that it consists of.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = usize> {
        let ring = self.ring.capacity() * size_of::<Chunk>();
        std::iter::once(ring).chain(self.ring.iter().map(|chunk| chunk.room.capacity()))
    }

    /// Gives the memory of its chunks back one by one, and tells before each how many bytes that is.
    /// Nothing but to drop it may be done with the list after that.
    pub(super) fn free_chunks(&mut self, mut frees: impl FnMut(usize)) {
        for chunk in &mut self.ring {
            frees(chunk.room.capacity());
            *chunk = Chunk::new();
        }
    }

    /// Adds an element at an end.
    pub(crate) fn push(&mut self, end: End, element: &[u8]) {
        let fits = match end {
            _ if self.chunks == 0 => false,
            End::Head => self.chunk(0).has_room(element),
            End::Tail => self.chunk(self.chunks - 1).has_room(element),
        };
        if !fits {
            self.add_chunk(end);
        }
        let last = self.chunks - 1;
        self.chunk_mut(if end == End::Head { 0 } else { last }).push(end, element);
        self.len += 1;
    }

    /// Takes the element at an end out, and shows it to `meet`. Returns whether there was one.
    pub(crate) fn pop(&mut self, end: End, meet: impl FnOnce(&[u8])) -> bool {
        if self.len == 0 {
            return false;
        }
        let at = if end == End::Head { 0 } else { self.chunks - 1 };
        let chunk = self.chunk_mut(at);
        chunk.pop(end, meet);
        if chunk.count == 0 {
            self.remove_chunk(end);
        }
        self.len -= 1;
        true
    }

    /// The element at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.iter_from(index).next()
    }

    /// The elements from `index` on.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let (mut chunk, mut skip) = (0, index);
        while chunk < self.chunks && skip >= self.chunk(chunk).count {
            skip -= self.chunk(chunk).count;
            chunk += 1;
        }
        (chunk..self.chunks).flat_map(|i| self.chunk(i).iter()).skip(skip)
    }

    /// Drops `count` elements from an end.
    pub(crate) fn drop_from(&mut self, end: End, count: usize) {
        let mut left = count.min(self.len);
        while left > 0 {
            let at = if end == End::Head { 0 } else { self.chunks - 1 };
            let whole = self.chunk(at).count;
            if whole <= left {
                self.remove_chunk(end);
                self.len -= whole;
                left -= whole;
            } else {
                self.pop(end, |_| {});
                left -= 1;
            }
        }
    }

    /// How many chunks there are to be moved by [`relocate_chunks`](Self::relocate_chunks).
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks
    }

    /// Where its ring lies.
    pub(super) fn address(&self) -> usize {
        self.ring.as_ptr().addr()
    }

    /// Moves its ring.
    pub(super) fn relocate_shell(&mut self, mover: &mut Mover<'_>) {
        self.ring.relocate(mover);
    }

    /// Moves the chunks from the number `at` on, until `goes_on`, which is told whether a chunk
    /// moved, says no. Returns whether that was all.
    pub(super) fn relocate_chunks(
        &mut self,
        at: &mut Option<u32>,
        mover: &mut Mover<'_>,
        mut goes_on: impl FnMut(bool, &mut Mover<'_>) -> bool,
    ) -> bool {
        // What was taken from the head meanwhile makes the distance negative.
        let done = at.map_or(0, |at| at.wrapping_sub(self.number) as i32);
        for index in done.max(0) as usize..self.chunks {
            let room = &mut self.chunk_mut(index).room;
            let before = room.as_ptr();
            room.relocate(mover);
            let moved = room.as_ptr() != before;
            *at = Some(self.number.wrapping_add(index as u32 + 1));
            if !goes_on(moved, mover) {
                return false;
            }
        }
        true
    }

    fn place(&self, index: usize) -> usize {
        let place = self.first + index;
        if place < self.ring.len() { place } else { place - self.ring.len() }
    }

    fn chunk(&self, index: usize) -> &Chunk {
        &self.ring[self.place(index)]
    }

    fn chunk_mut(&mut self, index: usize) -> &mut Chunk {
        let place = self.place(index);
        &mut self.ring[place]
    }

    fn add_chunk(&mut self, end: End) {
        if self.chunks == self.ring.len() {
            // In order first, so that the new places come behind the last one.
            self.ring.rotate_left(self.first);
            self.first = 0;
            let places = (self.chunks * 2).max(1);
            self.ring.reserve_exact(places - self.chunks);
            self.ring.resize_with(places, Chunk::new);
        }
        self.chunks += 1;
        if end == End::Head {
            self.first = self.first.checked_sub(1).unwrap_or(self.ring.len() - 1);
            self.number = self.number.wrapping_sub(1);
        }
    }

    fn remove_chunk(&mut self, end: End) {
        let at = if end == End::Head { 0 } else { self.chunks - 1 };
        *self.chunk_mut(at) = Chunk::new();
        if end == End::Head {
            self.first = self.place(1);
            self.number = self.number.wrapping_add(1);
        }
        self.chunks -= 1;
        if self.ring.len() > KEPT_PLACES.max(4 * self.chunks) {
            self.shrink_ring();
        }
    }

    /// Gives places back, of which three quarters are out of use: half of those that stay are free,
    /// so that the next time is as many chunks away as are moved now.
    fn shrink_ring(&mut self) {
        let mut ring = Vec::with_capacity_in((2 * self.chunks).max(1), In::NEW);
        ring.extend((0..self.chunks).map(|i| std::mem::replace(self.chunk_mut(i), Chunk::new())));
        ring.resize_with(ring.capacity(), Chunk::new);
        (self.ring, self.first) = (ring, 0);
    }
}

impl Relocate for Chunk {
    /// Nothing: the chunks are visited by [`List::relocate_chunks`], not with their ring.
    fn relocate(&mut self, _: &mut Mover<'_>) {}
}

impl Chunk {
    fn new() -> Self {
        Self { room: Vec::new_in(In::NEW), start: 0, end: 0, count: 0 }
    }

    fn has_room(&self, element: &[u8]) -> bool {
        self.end - self.start + framed_bytes(element.len()) <= CHUNK_BYTES
    }

    fn push(&mut self, end: End, element: &[u8]) {
        let bytes = framed_bytes(element.len());
        let free = if end == End::Head { self.start } else { self.room.len() - self.end };
        if free < bytes {
            self.grow(end, bytes);
        }
        let start = if end == End::Head { self.start - bytes } else { self.end };
        write_framed(&mut self.room[start..start + bytes], element);
        match end {
            End::Head => self.start = start,
            End::Tail => self.end = start + bytes,
        }
        self.count += 1;
    }

    /// Makes room for `more` bytes at an end: the elements go to the other one.
    #[cold]
    fn grow(&mut self, end: End, more: usize) {
        let used = self.end - self.start;
        let least = used + more;
        // A single large element gets what it needs and no more.
        let size = if least > CHUNK_BYTES {
            least
        } else {
            least.next_power_of_two().clamp(MIN_CHUNK_BYTES, CHUNK_BYTES)
        };
        let mut room = Vec::with_capacity_in(size, In::NEW);
        room.resize(size, 0);
        let start = if end == End::Head { size - used } else { 0 };
        room[start..start + used].copy_from_slice(&self.room[self.start..self.end]);
        (self.room, self.start, self.end) = (room, start, start + used);
    }

    fn pop(&mut self, end: End, meet: impl FnOnce(&[u8])) {
        let used = &self.room[self.start..self.end];
        let (head_bytes, length) = if end == End::Head { read_head(used) } else { read_tail(used) };
        let bytes = framed_bytes(length);
        match end {
            End::Head => {
                meet(&used[head_bytes..head_bytes + length]);
                self.start += bytes;
            }
            End::Tail => {
                let start = used.len() - bytes + head_bytes;
                meet(&used[start..start + length]);
                self.end -= bytes;
            }
        }
        self.count -= 1;
    }

    /// Its elements with their lengths.
    fn used(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.used();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (head_bytes, length) = read_head(rest);
            let element = &rest[head_bytes..head_bytes + length];
            rest = &rest[framed_bytes(length)..];
            Some(element)
        })
    }
}

fn length_bytes(length: usize) -> usize {
    if length < usize::from(LONG) { 1 } else { 5 }
}

fn framed_bytes(length: usize) -> usize {
    length + 2 * length_bytes(length)
}

/// The element with its length before and behind; a long one's mark is outermost.
fn write_framed(to: &mut [u8], element: &[u8]) {
    let (length, end) = (element.len(), to.len());
    let around = length_bytes(length);
    to[around..around + length].copy_from_slice(element);
    if around == 1 {
        (to[0], to[end - 1]) = (length as u8, length as u8);
    } else {
        (to[0], to[end - 1]) = (LONG, LONG);
        // Lengths are bounded by `proto-max-bulk-len`, far below.
        to[1..5].copy_from_slice(&(length as u32).to_le_bytes());
        to[end - 5..end - 1].copy_from_slice(&(length as u32).to_le_bytes());
    }
}

/// How long the length before the first element is, and what it says.
fn read_head(bytes: &[u8]) -> (usize, usize) {
    match bytes[0] {
        LONG => (5, read_long(&bytes[1..5])),
        short => (1, usize::from(short)),
    }
}

/// The same for the length behind the last element.
fn read_tail(bytes: &[u8]) -> (usize, usize) {
    let end = bytes.len();
    match bytes[end - 1] {
        LONG => (5, read_long(&bytes[end - 5..end - 1])),
        short => (1, usize::from(short)),
    }
}

fn read_long(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes.try_into().unwrap_or_default()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn as_a_deque_would() {
        let (mut list, mut model) = (List::new(), VecDeque::new());
        for i in 0usize..20_000 {
            let end = if i * 7919 % 3 == 0 { End::Head } else { End::Tail };
            let filling = (i / 4000) % 2 == 0;
            if filling || i % 5 == 0 {
                let element = vec![(i % 251) as u8; if i % 997 == 0 { 9000 } else { i % 300 }];
                list.push(end, &element);
                if end == End::Head { model.push_front(element) } else { model.push_back(element) }
            } else {
                let wanted = if end == End::Head { model.pop_front() } else { model.pop_back() };
                let found = list.pop(end, |element| assert_eq!(Some(element), wanted.as_deref()));
                assert_eq!(found, wanted.is_some());
            }
            assert_eq!(list.len(), model.len());
            let middle = model.len() / 2;
            assert_eq!(list.get(middle), model.get(middle).map(|element| &element[..]));
        }
        list.drop_from(End::Head, 10);
        list.drop_from(End::Tail, 10);
        let kept = model.len().saturating_sub(20);
        assert!(list.iter_from(0).eq(model.iter().skip(10).take(kept)));
    }

    #[test]
    fn what_was_long_is_small_when_it_is_short() {
        let full = || {
            let mut list = List::new();
            (0..10_000).for_each(|_| list.push(End::Tail, &[7; 1000]));
            list
        };
        for end in [End::Head, End::Tail] {
            let (mut cut, mut popped) = (full(), full());
            cut.drop_from(end, 9_999);
            (0..9_999).for_each(|_| assert!(popped.pop(end, |_| {})));
            for list in [&mut cut, &mut popped] {
                let bytes: usize = list.own_blocks().sum();
                assert!(bytes <= CHUNK_BYTES + KEPT_PLACES * size_of::<Chunk>(), "{bytes}");
                (0..100).for_each(|i| list.push(end, &[i]));
                assert_eq!((list.len(), list.iter_from(0).count()), (101, 101));
            }
        }
    }
}
