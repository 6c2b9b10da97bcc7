//! Requests to Valgrind, for builds that are made to run under its tools
//! (`--cfg tallow_helgrind`, `--cfg tallow_memcheck`; `ci/sanitize.sh`): rotations of a
//! register that come to nothing on a processor.

use core::arch::asm;

/// Tells the tool `what`, a number that the tool's header promises to keep, of two words.
pub(crate) fn tell(what: usize, first: usize, second: usize) {
    let request = [what, first, second, 0, 0, 0];
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
