//! What memcheck is told, which gets it wrong otherwise (`--cfg tallow_memcheck`): when
//! `mremap` moves a block to a fixed place and makes it longer, what it gains may take
//! the access that another mapping has, by a record that Valgrind (3.19) reads after it has
//! changed. Beside a guard page that is none, and each access a report.

use crate::os::valgrind;

/// The number that `valgrind/memcheck.h` promises to keep.
const MAKE_MEM_DEFINED: usize = 0x4d43_0000 + 2;

/// So many bytes at an address may be used, and read as zero.
pub(super) fn mapped(address: usize, bytes: usize) {
    valgrind::tell(MAKE_MEM_DEFINED, address, bytes);
}
