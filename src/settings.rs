//! Floor 1: what can be chosen, by whom, and what is in effect.
//!
//! A [`Builder`] is a constant; the allocator that is called first puts its own
//! into effect, on a slow path, so the hot path never looks. Environment
//! variables come on top where the builder allows them. What is in effect lies
//! in [`SETTINGS`], one atomic for each, read on slow paths only.

use crate::config::{DECAY_MS, GUARD_ONE_IN, HARDENED, MAGAZINE_BYTES, MAX_ARENAS};
use crate::error::Line;
use crate::os;
use crate::sync::Ordering;
use crate::sync::unwatched::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize};
use core::ffi::CStr;
use core::fmt::{self, Write as _};
use core::time::Duration;

/// Whether memory is to be backed by huge pages (2 MiB). See [`Builder::huge_pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HugePages {
    /// As the system does by itself.
    System = 0,
    /// Asks for them for huge blocks from 4 MiB on.
    Blocks = 1,
    /// Asks for them for segments too while the heap grows from a size at which one
    /// segment more or less is small; takes that back from segments of which pages
    /// are given back. To fill such a heap and to fork it take about half the time.
    Dense = 2,
    /// Asks for them everywhere.
    Always = 3,
    /// Asks the system to leave Tallow's memory in small pages.
    Never = 4,
}

/// What blocks are filled with. See [`Builder::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fill {
    /// 0xA5 when allocated, 0x5A when freed: shows the use of memory that was
    /// not written, or is not owned any more.
    Junk = 1,
    /// Zero, both times: leaves nothing behind in memory.
    Zero = 2,
}

/// When a block is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Allocated,
    Freed,
}

impl Fill {
    pub(crate) fn byte(self, moment: Moment) -> u8 {
        match (self, moment) {
            (Self::Zero, _) => 0,
            (Self::Junk, Moment::Allocated) => 0xA5,
            (Self::Junk, Moment::Freed) => 0x5A,
        }
    }
}

/// Settings, chosen at compile time. From [`Tallow::builder`](crate::Tallow::builder).
///
/// ```
/// #[global_allocator]
/// static ALLOC: tallow::Tuned = tallow::Tallow::builder()
///     .decay(Some(std::time::Duration::from_secs(1)))
///     .magazine_bytes(16 << 10)
///     .environment(true)
///     .build();
///
/// let text = "tally".repeat(100);
/// assert!(tallow::stats().allocated_bytes >= text.len() as u64);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builder {
    decay_ms: Option<u64>,
    magazine_bytes: usize,
    arenas: usize,
    huge_pages: HugePages,
    prefault: bool,
    fill: Option<Fill>,
    environment: bool,
    zero_on_free: bool,
    guard_one_in: u32,
}

/// What regions are filled with while they are free, in the hardened mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Poison {
    /// Nothing: [`Fill`] does it.
    None = 0,
    /// A byte that makes no address, at the start.
    Junk = 1,
    /// Zero, all of it.
    Zero = 2,
}

/// In milliseconds; less than one, but not nothing, is one.
pub(crate) const fn whole_ms(time: Duration) -> u64 {
    let ms = time.as_millis();
    if time.is_zero() {
        0
    } else if ms == 0 {
        1
    } else if ms > u64::MAX as u128 {
        u64::MAX
    } else {
        ms as u64
    }
}

/// What the crate itself is built with.
pub(crate) type Settings = Builder;

impl Builder {
    /// What [`Tallow`](crate::Tallow) does.
    pub(crate) const DEFAULT: Self = Self {
        decay_ms: Some(DECAY_MS),
        magazine_bytes: MAGAZINE_BYTES,
        arenas: MAX_ARENAS,
        huge_pages: HugePages::Blocks,
        prefault: false,
        fill: None,
        environment: false,
        zero_on_free: false,
        guard_one_in: if HARDENED && !cfg!(test) { GUARD_ONE_IN } else { 0 },
    };

    /// Time in which free pages go back to the system; `Some(Duration::ZERO)`: at
    /// once, `None`: never. Ten seconds when not set. At run time:
    /// [`set_decay`](crate::set_decay).
    #[must_use]
    pub const fn decay(mut self, time: Option<Duration>) -> Self {
        self.decay_ms = match time {
            Some(time) => Some(whole_ms(time)),
            None => None,
        };
        self
    }

    /// Bytes that a thread may keep of each size class; at least one region, at most
    /// [`MAGAZINE_MAX`](crate::config::MAGAZINE_MAX) and [`MAGAZINE_BYTES`], which is the default.
    #[must_use]
    pub const fn magazine_bytes(mut self, bytes: usize) -> Self {
        self.magazine_bytes = bytes;
        self
    }

    /// Arenas at most, 1 to [`MAX_ARENAS`], which is the default. More than one, and
    /// no more than there are processors, are opened only for threads that get in
    /// each other's way.
    #[must_use]
    pub const fn arenas(mut self, arenas: usize) -> Self {
        self.arenas = arenas;
        self
    }

    /// Whether to ask for huge pages. [`HugePages::Blocks`] when not set.
    #[must_use]
    pub const fn huge_pages(mut self, mode: HugePages) -> Self {
        self.huge_pages = mode;
        self
    }

    /// Has the system back segments (4 MiB) and huge blocks when they are taken, and
    /// not page by page when they are first written: no page faults later, and all
    /// of it resident at once. Linux 5.14; elsewhere it changes nothing. Not when not
    /// set.
    #[must_use]
    pub const fn prefault(mut self, yes: bool) -> Self {
        self.prefault = yes;
        self
    }

    /// Fills every block, when it is allocated and when it is freed. For
    /// debugging: threads keep no blocks then, which makes all of it many times
    /// slower. Not when not set.
    #[must_use]
    pub const fn fill(mut self, fill: Fill) -> Self {
        self.fill = Some(fill);
        self
    }

    /// Overwrites blocks with zeros when they are freed, all of their bytes: no secret
    /// stays in memory that somebody else may be handed. Not when not set: then bytes
    /// at the start and the end are overwritten, up to
    /// [`POISON_BYTES`](crate::config::POISON_BYTES).
    #[cfg(feature = "hardened")]
    #[must_use]
    pub const fn zero_on_free(mut self, yes: bool) -> Self {
        self.zero_on_free = yes;
        self
    }

    /// Of so many small blocks, on average, one lies between guard pages of its own,
    /// and stays inaccessible for a while when it is freed. An access that misses it
    /// ends the program with three backtraces: of the access, of the allocation and of
    /// the free. 0: none. [`GUARD_ONE_IN`] when not set.
    #[cfg(feature = "hardened")]
    #[must_use]
    pub const fn guard_sampling(mut self, one_in: u32) -> Self {
        self.guard_one_in = one_in;
        self
    }

    /// Whether `TALLOW_DECAY_MS`, `TALLOW_MAGAZINE_BYTES`, `TALLOW_ARENAS`,
    /// `TALLOW_HUGE_PAGES`, `TALLOW_PREFAULT` and `TALLOW_FILL` in the environment have the last word;
    /// with the feature `hardened` also `TALLOW_ZERO_ON_FREE` and `TALLOW_GUARD_SAMPLE`. A
    /// value that is not understood is named on stderr, in one line, and ignored: what was
    /// chosen here holds. Ignored in programs that run with more rights than their user. Not
    /// when not set.
    #[must_use]
    pub const fn environment(mut self, read: bool) -> Self {
        self.environment = read;
        self
    }

    /// With the environment's say, if it has one.
    fn resolved(mut self) -> Self {
        if !self.environment {
            return self;
        }
        let number = |text: &str| text.parse().ok();
        read(c"TALLOW_DECAY_MS", "milliseconds, or never", |text| {
            self.decay_ms = if text == "never" { None } else { Some(text.parse().ok()?) };
            Some(())
        });
        read(c"TALLOW_MAGAZINE_BYTES", "a number of bytes", |text| {
            self.magazine_bytes = number(text)?;
            Some(())
        });
        read(c"TALLOW_ARENAS", "a number from 1 to 4", |text| {
            self.arenas = number(text).filter(|n| (1..=MAX_ARENAS).contains(n))?;
            Some(())
        });
        read(c"TALLOW_HUGE_PAGES", "system, blocks, dense, always or never", |text| {
            self.huge_pages = match text {
                "system" => HugePages::System,
                "blocks" => HugePages::Blocks,
                "dense" => HugePages::Dense,
                "always" => HugePages::Always,
                "never" => HugePages::Never,
                _ => return None,
            };
            Some(())
        });
        if let Some(yes) = switch(c"TALLOW_PREFAULT") {
            self.prefault = yes;
        }
        read(c"TALLOW_FILL", "none, junk or zero", |text| {
            self.fill = match text {
                "none" => None,
                "junk" => Some(Fill::Junk),
                "zero" => Some(Fill::Zero),
                _ => return None,
            };
            Some(())
        });
        if HARDENED {
            if let Some(yes) = switch(c"TALLOW_ZERO_ON_FREE") {
                self.zero_on_free = yes;
            }
            read(c"TALLOW_GUARD_SAMPLE", "a number of allocations, or 0", |text| {
                self.guard_one_in = text.parse().ok()?;
                Some(())
            });
        }
        self
    }
}

/// Hands the variable's text to `take`; `None` from it is worth a line.
fn read(name: &CStr, wanted: &str, take: impl FnOnce(&str) -> Option<()>) {
    let Some(bytes) = os::environment(name) else { return };
    let text = str::from_utf8(bytes);
    if text.ok().and_then(take).is_none() {
        let name = name.to_str().unwrap_or("");
        // What would end the line, or tell a terminal something, is written as text.
        let shown = text.unwrap_or("(not text)").escape_debug();
        warn(format_args!("{name}={shown} is not {wanted}; it is ignored"));
    }
}

/// What the variable says, if it says `0` or `1`.
fn switch(name: &CStr) -> Option<bool> {
    let mut said = None;
    read(name, "0 or 1", |text| {
        said = match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        said.map(|_| ())
    });
    said
}

/// Whether the variable switches something on. See [`Builder::environment`].
pub(crate) fn is_on(name: &CStr) -> bool {
    switch(name) == Some(true)
}

/// One line on stderr, without allocating.
fn warn(what: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // A `Line` takes every write, so there is no error to look at.
    let _ = write!(line, "tallow: {what}");
    os::write_stderr(line.end().as_bytes());
}

/// The settings in effect. Relaxed throughout: each is a value of its own, and an
/// old one does no harm.
pub(crate) struct InEffect {
    taken: AtomicBool,
    magazine_bytes: AtomicUsize,
    arenas: AtomicUsize,
    huge_pages: AtomicU8,
    prefault: AtomicBool,
    fill: AtomicU8,
    poison: AtomicU8,
    guard_one_in: AtomicU32,
}

/// Of this process.
pub(crate) static SETTINGS: InEffect = InEffect {
    taken: AtomicBool::new(false),
    magazine_bytes: AtomicUsize::new(Builder::DEFAULT.magazine_bytes),
    arenas: AtomicUsize::new(Builder::DEFAULT.arenas),
    huge_pages: AtomicU8::new(Builder::DEFAULT.huge_pages as u8),
    prefault: AtomicBool::new(Builder::DEFAULT.prefault),
    fill: AtomicU8::new(0),
    poison: AtomicU8::new(Poison::Junk as u8),
    guard_one_in: AtomicU32::new(Builder::DEFAULT.guard_one_in),
};

impl InEffect {
    /// Puts `settings` into effect if none have been yet, and returns their decay
    /// time, for the page heap.
    #[inline]
    pub(crate) fn take_up(&self, settings: &Settings) -> Option<Option<u64>> {
        if self.taken.load(Ordering::Relaxed) || self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(self.put(settings))
    }

    /// Puts `settings` into effect, whatever held before.
    #[cold]
    pub(crate) fn put(&self, settings: &Settings) -> Option<u64> {
        let chosen = settings.resolved();
        self.taken.store(true, Ordering::Relaxed);
        self.magazine_bytes.store(chosen.magazine_bytes.min(MAGAZINE_BYTES), Ordering::Relaxed);
        self.arenas.store(chosen.arenas.clamp(1, MAX_ARENAS), Ordering::Relaxed);
        self.huge_pages.store(chosen.huge_pages as u8, Ordering::Relaxed);
        self.prefault.store(chosen.prefault, Ordering::Relaxed);
        self.fill.store(chosen.fill.map_or(0, |fill| fill as u8), Ordering::Relaxed);
        if HARDENED {
            let poison = match (chosen.fill, chosen.zero_on_free) {
                (Some(_), _) => Poison::None,
                (None, true) => Poison::Zero,
                (None, false) => Poison::Junk,
            };
            self.poison.store(poison as u8, Ordering::Relaxed);
            self.guard_one_in.store(chosen.guard_one_in, Ordering::Relaxed);
        }
        chosen.decay_ms
    }

    /// Only of use in the hardened mode.
    #[inline(always)]
    pub(crate) fn poison(&self) -> Poison {
        match self.poison.load(Ordering::Relaxed) {
            0 => Poison::None,
            1 => Poison::Junk,
            _ => Poison::Zero,
        }
    }

    /// As above.
    pub(crate) fn guard_one_in(&self) -> u32 {
        self.guard_one_in.load(Ordering::Relaxed)
    }

    pub(crate) fn magazine_bytes(&self) -> usize {
        self.magazine_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn arenas(&self) -> usize {
        self.arenas.load(Ordering::Relaxed)
    }

    pub(crate) fn huge_pages(&self) -> HugePages {
        match self.huge_pages.load(Ordering::Relaxed) {
            1 => HugePages::Blocks,
            2 => HugePages::Dense,
            3 => HugePages::Always,
            4 => HugePages::Never,
            _ => HugePages::System,
        }
    }

    pub(crate) fn prefault(&self) -> bool {
        self.prefault.load(Ordering::Relaxed)
    }

    pub(crate) fn fill(&self) -> Option<Fill> {
        match self.fill.load(Ordering::Relaxed) {
            1 => Some(Fill::Junk),
            2 => Some(Fill::Zero),
            _ => None,
        }
    }
}
