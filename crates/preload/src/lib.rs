//! `libtallow.so`: Tallow as the `malloc` of programs in any language.
//!
//! ```text
//! LD_PRELOAD=./libtallow.so TALLOW_STATS=1 python3 big.py
//! ```
//!
//! | module | what it exports |
//! |---|---|
//! | `c` | the C and POSIX functions, and glibc's |
//! | `cxx` | C++'s `operator new` and `operator delete` |
//! | `books` | `mallinfo2`, `malloc_stats`, `tallow_stats_print`, `tallow_stats_json` |
//! | `moving` | the defragmentation hint: `tallow_defrag_begin`, `tallow_should_move`, `tallow_move` |
//! | `program` | nothing: it knows what the program has replaced, and calls that |
//! | `start` | what is done when the library is loaded: the environment |
//! | `stdio` | nothing: it has a fork lock the C library's streams before Tallow |
//!
//! `include/tallow.h` declares what is Tallow's own. A free is told no size here;
//! the class of a block stands in the page map, two loads away from its address.

mod books;
mod c;
mod cxx;
mod moving;
mod program;
mod start;
#[cfg(target_env = "gnu")]
mod stdio;

/// For this library's own needs, such as the text of the statistics.
#[global_allocator]
static ALLOC: heap::Tallow = heap::Tallow::new();
