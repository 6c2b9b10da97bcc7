//! Floor 0: one clear line on stderr, then abort.
//!
//! The allocator never unwinds and never allocates, so a message is put
//! together in a small buffer on the stack. It is used for proven corruption and, in
//! debug builds, for a panic of the allocator's own; memory that has run out is reported by
//! a null pointer.

use core::fmt::{self, Write};

/// A line of text on the stack. What does not fit is cut off, but for its end.
pub(crate) struct Line {
    bytes: [u8; 240],
    len: usize,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; 240], len: 0 }
    }

    /// The line, with an end after it.
    pub(crate) fn end(mut self) -> Self {
        self.len = self.len.min(self.bytes.len() - 1);
        self.bytes[self.len] = b'\n';
        self.len += 1;
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let n = s.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// What proved that the heap, or the program's use of it, is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corruption {
    /// The pointer was freed twice.
    DoubleFree { address: usize, region_bytes: usize },
    /// The pointer is not in memory that Tallow handed out; the size is 0 if it was
    /// not told.
    Foreign { address: usize, size: usize },
    /// The pointer lies inside a block, not at its start.
    Interior { address: usize, region_bytes: usize },
    /// The layout given back differs from the one that was asked for.
    Layout { address: usize, freed_bytes: usize, owned_bytes: usize },
    /// More regions were taken out of a thread's cache than it held.
    Cache { held: usize, taken: usize },
    /// The size given back is not the one that was asked for, though of its class; or
    /// a block of one face was freed by the other.
    Size { address: usize, freed_bytes: usize },
    /// Bytes behind the block were written.
    Overflow { address: usize, size: usize },
    /// Bytes before the block were written.
    Underflow { address: usize, size: usize },
    /// A free block was written.
    WriteAfterFree { address: usize, offset: usize, region_bytes: usize },
    /// A header does not say what it must say.
    Header { address: usize, word: u64 },
    /// A thread waits for a lock that it holds.
    #[cfg_attr(not(debug_assertions), allow(dead_code, reason = "debug builds look"))]
    Reentry,
    /// A panic left the allocator while it held a lock.
    #[cfg_attr(not(debug_assertions), allow(dead_code, reason = "debug builds look"))]
    Panic,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DoubleFree { address, region_bytes } => {
                write!(f, "double free of {address:#x} (class of {region_bytes} bytes)")
            }
            Self::Foreign { address, size: 0 } => write!(
                f,
                "free of {address:#x}, which Tallow did not hand out or has already taken back"
            ),
            Self::Foreign { address, size } => write!(
                f,
                "free of {address:#x} (layout of {size} bytes), which Tallow did not hand out or has already taken back"
            ),
            Self::Interior { address, region_bytes } => write!(
                f,
                "free of {address:#x}, which is not the start of a block (class of {region_bytes} bytes)"
            ),
            Self::Layout { address, freed_bytes, owned_bytes } => write!(
                f,
                "free of {address:#x} as a class of {freed_bytes} bytes, but it was allocated as one of {owned_bytes} bytes: the layouts differ"
            ),
            Self::Cache { held, taken } => {
                write!(f, "a thread cache held {held} regions, but {taken} were taken out of it")
            }
            Self::Size { address, freed_bytes } => write!(
                f,
                "free of {address:#x} with a size of {freed_bytes} bytes, which it was not allocated with: the layouts differ"
            ),
            Self::Overflow { address, size } => {
                write!(f, "bytes behind the block of {size} bytes at {address:#x} were written")
            }
            Self::Underflow { address, size } => {
                write!(f, "bytes before the block of {size} bytes at {address:#x} were written")
            }
            Self::WriteAfterFree { address, offset, region_bytes } => write!(
                f,
                "write after free: byte {offset} of the free block at {address:#x} was changed (class of {region_bytes} bytes)"
            ),
            Self::Header { address, word } => {
                write!(f, "the header at {address:#x} is corrupt (word {word:#x})")
            }
            Self::Reentry => f.write_str(
                "the allocator was called from within itself: by the message of a panic in it, or by a handler of a signal that interrupted it",
            ),
            Self::Panic => f.write_str("a panic in the allocator, which cannot go on"),
        }
    }
}

impl Corruption {
    /// The whole line, with the program's name before it and a line end after.
    pub(crate) fn line(self) -> Line {
        let mut line = Line::new();
        // A `Line` takes every write, so there is no error to look at.
        let _ = write!(line, "tallow: {self}; aborting");
        line.end()
    }
}
