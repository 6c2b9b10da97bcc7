//! What memcheck is told, which gets it wrong otherwise (`--cfg tallow_memcheck`): when
//! `mremap` moves a block to a fixed place and makes it longer, what it gains may take
//! the access that another mapping has, by a record that Valgrind (3.19) reads after it has
//! changed. Beside a guard page that is none, and each access a report.
//!
//! A request in Valgrind's way, rotations of a register that come to nothing on a
//! processor. See `ci/sanitize.sh`.

use core::arch::asm;

/// The number that `valgrind/memcheck.h` promises to keep.
const MAKE_MEM_DEFINED: usize = 0x4d43_0000 + 2;

/// So many bytes at an address may be used, and read as zero.
pub(super) fn mapped(address: usize, bytes: usize) {
    let request = [MAKE_MEM_DEFINED, address, bytes, 0, 0, 0];
    // SAFETY: four rotations by 128 bits in all and an exchange of a register with itself
    // change nothing; Valgrind reads the request, and writes `rdx`.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0_usize => _,
        );
    }
}
