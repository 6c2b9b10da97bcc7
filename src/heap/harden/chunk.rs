//! Hardened: sixteen bytes at a time, which is what regions are multiples of. By the
//! processor's own registers of that length where all of its kind have them: without,
//! the compiler compares word by word.

/// Bytes that are written and read at once.
pub(super) const CHUNK_BYTES: usize = 16;

#[cfg(target_arch = "x86_64")]
mod imp {
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8,
        _mm_store_si128,
    };

    #[inline(always)]
    pub(super) unsafe fn fill(chunks: [*mut u8; 4], byte: u8) {
        // SAFETY: every processor of this architecture can.
        let value = unsafe { _mm_set1_epi8(byte as i8) };
        for chunk in chunks {
            // SAFETY: the caller's promise.
            unsafe { _mm_store_si128(chunk.cast::<__m128i>(), value) };
        }
    }

    #[inline(always)]
    pub(super) unsafe fn hold(chunks: [*mut u8; 4], byte: u8) -> bool {
        // SAFETY: as above.
        let value = unsafe { _mm_set1_epi8(byte as i8) };
        let same = chunks.map(|chunk| {
            // SAFETY: the caller's promise.
            let bytes = unsafe { _mm_load_si128(chunk.cast::<__m128i>()) };
            // SAFETY: as above.
            unsafe { _mm_cmpeq_epi8(bytes, value) }
        });
        // SAFETY: as above.
        let (a, b) = unsafe { (_mm_and_si128(same[0], same[1]), _mm_and_si128(same[2], same[3])) };
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(_mm_and_si128(a, b)) == 0xffff }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod imp {
    #[inline(always)]
    pub(super) unsafe fn fill(chunks: [*mut u8; 4], byte: u8) {
        for chunk in chunks {
            // SAFETY: the caller's promise.
            unsafe { chunk.cast::<u128>().write(u128::from_ne_bytes([byte; 16])) };
        }
    }

    #[inline(always)]
    pub(super) unsafe fn hold(chunks: [*mut u8; 4], byte: u8) -> bool {
        let value = u128::from_ne_bytes([byte; 16]);
        // SAFETY: the caller's promise.
        let differences = chunks.map(|chunk| unsafe { chunk.cast::<u128>().read() } ^ value);
        differences.iter().fold(0, |all, it| all | it) == 0
    }
}

/// Fills chunks with a byte.
///
/// # Safety
/// Each is aligned to its length, valid, and the caller's.
#[inline(always)]
pub(super) unsafe fn fill(chunks: [*mut u8; 4], byte: u8) {
    // SAFETY: the caller's promise.
    unsafe { imp::fill(chunks, byte) }
}

/// Whether chunks hold that byte only.
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
pub(super) unsafe fn hold(chunks: [*mut u8; 4], byte: u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { imp::hold(chunks, byte) }
}
