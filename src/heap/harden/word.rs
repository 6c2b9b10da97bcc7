//! Where the allocator's bytes and the program's meet. The program may never have written
//! its own, and by the language's rules a number that holds such a byte is none, whatever
//! is done with it after it was read. And the pointer that it gives a block back with may
//! reach that block alone, while no other one may write there until it is given back.

/// The compiler does not see these accesses, so every byte has some value and every
/// pointer reaches the region; the instructions are those that there would be anyway.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    use core::arch::asm;

    #[inline(always)]
    pub(in super::super) unsafe fn read(at: *const u64, _ours: u64) -> u64 {
        let word;
        // SAFETY: eight bytes that may be read, by the caller's promise.
        unsafe {
            asm!(
                "mov {word}, qword ptr [{at}]",
                at = in(reg) at,
                word = lateout(reg) word,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        word
    }

    #[inline(always)]
    pub(in super::super) unsafe fn write(at: *mut u64, ours: u64, value: u64) {
        // SAFETY: the caller's promise.
        let others = unsafe { read(at, ours) } & !ours;
        // SAFETY: as above.
        unsafe { at.write_unaligned(others | value & ours) };
    }

    #[inline(always)]
    pub(in super::super) unsafe fn fill(block: *mut u8, _size: usize, bytes: usize, value: u8) {
        // SAFETY: the caller's promise.
        unsafe { block.write_bytes(value, bytes) };
    }
}

/// By the rules: byte by byte, and each by the pointer that may reach it.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod imp {
    use core::ptr;

    /// A pointer to all of the region around `at`: segments are exposed where they are
    /// reserved.
    fn whole(at: *mut u8) -> *mut u8 {
        ptr::with_exposed_provenance_mut(at.addr())
    }

    pub(in super::super) unsafe fn read(at: *const u64, ours: u64) -> u64 {
        let (mut word, at) = ([0; 8], whole(at.cast_mut().cast()));
        for (i, byte) in word.iter_mut().enumerate().filter(|(i, _)| is_ours(ours, *i)) {
            // SAFETY: one of eight bytes that may be read, by the caller's promise.
            *byte = unsafe { at.add(i).read() };
        }
        u64::from_ne_bytes(word)
    }

    pub(in super::super) unsafe fn write(at: *mut u64, ours: u64, value: u64) {
        let (value, at) = (value.to_ne_bytes(), whole(at.cast()));
        for (i, byte) in value.into_iter().enumerate().filter(|(i, _)| is_ours(ours, *i)) {
            // SAFETY: one of eight bytes that may be written, by the caller's promise.
            unsafe { at.add(i).write(byte) };
        }
    }

    fn is_ours(ours: u64, byte: usize) -> bool {
        ours.to_ne_bytes()[byte] != 0
    }

    pub(in super::super) unsafe fn fill(block: *mut u8, size: usize, bytes: usize, value: u8) {
        let first = size.min(bytes);
        // SAFETY: the caller's promise.
        unsafe { block.write_bytes(value, first) };
        let behind = whole(block.wrapping_add(first));
        // SAFETY: as above.
        unsafe { behind.write_bytes(value, bytes - first) };
    }
}

/// Reads a word; only the bits `ours`, of whole bytes, mean something. It need not be
/// aligned.
///
/// # Safety
/// Eight bytes that may be read; those of `ours` have been written.
#[inline(always)]
pub(super) unsafe fn read(at: *const u64, ours: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { imp::read(at, ours) }
}

/// Writes the bits `ours`, of whole bytes, and leaves the others as they are.
///
/// # Safety
/// Eight bytes that may be read and written, and that nobody else writes meanwhile.
#[inline(always)]
pub(super) unsafe fn write(at: *mut u64, ours: u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { imp::write(at, ours, value) }
}

/// Fills the first `bytes` of a region that is given back as a block of `size` bytes.
///
/// # Safety
/// The region has so many bytes, and is nobody else's.
#[inline(always)]
pub(super) unsafe fn fill(block: *mut u8, size: usize, bytes: usize, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { imp::fill(block, size, bytes, value) }
}
