//! What the fuzz targets do with their bytes. Used by libFuzzer, and by
//! `tests/fuzz_corpus.rs` on a stable compiler.
//!
//! The program runs on another allocator; Tallow serves the operations and
//! nothing else, so its books must agree to the byte.

#[path = "../../tests/block/mod.rs"]
mod block;
mod defrag;
mod layouts;
mod operations;
mod settings;
mod transfers;

pub use defrag::{Switch, defrag};
pub use layouts::layouts;
pub use operations::operations;
pub use settings::settings;
pub use transfers::transfers;

static TALLOW: tallow::Tallow = tallow::Tallow::new();

/// Blocks longer than that are written and read at their ends only.
const EDGE: usize = 512;

fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

/// Asserts that nothing is held that was not held then, and that the books are in order.
fn same_as(before: &tallow::Snapshot) {
    let now = tallow::stats();
    assert_eq!(now.requested_bytes, before.requested_bytes);
    assert_eq!(now.allocated_bytes, before.allocated_bytes);
    assert_eq!((now.large_count, now.huge_count), (before.large_count, before.huge_count));
    in_order(&now);
}

fn in_order(now: &tallow::Snapshot) {
    assert!(now.requested_bytes <= now.allocated_bytes, "{now}");
    assert!(now.allocated_bytes <= now.active_bytes, "{now}");
    assert!(now.active_bytes <= now.resident_bytes, "{now}");
    assert!(now.resident_bytes <= now.mapped_bytes, "{now}");
}

/// The input, byte by byte; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    fn number(&mut self, bytes: usize) -> usize {
        (0..bytes).fold(0, |sum, _| sum << 8 | self.byte())
    }

    /// A size that is small, large or huge, or at a border.
    fn size(&mut self) -> usize {
        match self.byte() {
            0..=119 => self.byte() + 1,
            120..=199 => self.number(2) % (40 << 10) + 1,
            200..=231 => {
                let borders = [8, 16, 128, 1024, 4096, 32 << 10, 1 << 20, 4 << 20];
                borders[self.byte() % 8] + self.byte() % 3 - 1
            }
            232..=251 => self.number(3) % (1 << 20) + 1,
            _ => self.number(3) % (6 << 20) + 1,
        }
    }

    fn align(&mut self) -> usize {
        let byte = self.byte();
        1 << if byte < 200 { byte % 5 } else { byte % 23 }
    }
}
