//! What the bytes of keys and values are: their hash, the sizes they take, and contents that can be
//! checked.

/// A fixed 64-bit mixer: every input bit reaches every output bit.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let wide = (value ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xd6e8_feb8_6659_fd93;
    let folded = (wide as u64) ^ ((wide >> 64) as u64);
    let wide = folded as u128 * 0xa076_1d64_78bd_642f;
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The hash of a key. Fixed, not seeded: two runs put the same key in the same bucket, so that they
/// allocate the same memory in the same order. (A server open to strangers would seed it.)
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    let mut state = mix(key.len() as u64);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        state = mix(state ^ u64::from_le_bytes(bytes));
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(state ^ u64::from_le_bytes(tail))
}

/// Bytes that an allocator takes for a request of `bytes`: 16-byte steps up to 128, four steps per
/// doubling above, whole pages past 32 KiB. This is the spacing of Tallow and of jemalloc, so that
/// the store's `used_bytes` means what `used_memory` means in Redis: usable sizes, not requests.
#[must_use]
pub const fn usable_bytes(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        129..=32_768 => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
        _ => bytes.next_multiple_of(4096),
    }
}

/// The eight bytes that the value of the key with this hash repeats.
const fn pattern(key_hash: u64) -> [u8; 8] {
    mix(key_hash ^ 0x5eed).to_le_bytes()
}

/// A value of `len` bytes whose contents follow from its key's hash alone, so that at any time
/// every value in the store can be checked against its key.
#[must_use]
pub fn value_for(key_hash: u64, len: usize) -> Box<[u8]> {
    let pattern = pattern(key_hash);
    let mut value = Vec::with_capacity(len);
    for _ in 0..len / 8 {
        value.extend_from_slice(&pattern);
    }
    value.extend_from_slice(&pattern[..len % 8]);
    value.into_boxed_slice()
}

/// `value` with `extra` bytes added at the end, still right for its key.
#[must_use]
pub fn appended(key_hash: u64, value: Box<[u8]>, extra: usize) -> Box<[u8]> {
    let pattern = pattern(key_hash);
    let phase = phase_of(&pattern, &value).unwrap_or(0) + value.len();
    let mut value = value.into_vec();
    // Grows in place where the allocator can: this is the program's realloc.
    value.reserve_exact(extra);
    value.extend((0..extra).map(|i| pattern[(phase + i) % 8]));
    value.into_boxed_slice()
}

/// `value` with `extra` bytes put before it, still right for its key.
#[must_use]
pub fn prepended(key_hash: u64, value: &[u8], extra: usize) -> Box<[u8]> {
    let pattern = pattern(key_hash);
    let phase = phase_of(&pattern, value).unwrap_or(0) + 8 - extra % 8;
    let mut longer = Vec::with_capacity(value.len() + extra);
    longer.extend((0..extra).map(|i| pattern[(phase + i) % 8]));
    longer.extend_from_slice(value);
    longer.into_boxed_slice()
}

/// Whether `value` is what the key with this hash should hold. Values start anywhere in the
/// pattern, since a prepend shifts it.
#[must_use]
pub fn is_value_of(key_hash: u64, value: &[u8]) -> bool {
    phase_of(&pattern(key_hash), value).is_some()
}

/// The place in `pattern` at which `value` starts, if it repeats the pattern throughout.
fn phase_of(pattern: &[u8; 8], value: &[u8]) -> Option<usize> {
    (0..8).find(|&phase| {
        let mut turned = *pattern;
        turned.rotate_left(phase);
        let mut words = value.chunks_exact(8);
        words.all(|word| word == turned) && words.remainder() == &turned[..words.remainder().len()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_differ_by_length_and_content() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"a", b"aaaaaaaa", b"aaaaaaaab"];
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[i + 1..] {
                assert_ne!(hash(one), hash(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn usable_sizes_follow_the_classes() {
        for (asked, taken) in [
            (0, 0),
            (1, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (273, 320),
            (321, 384),
            (32_769, 36_864),
        ] {
            assert_eq!(usable_bytes(asked), taken, "{asked} bytes");
        }
    }

    #[test]
    fn values_stay_checkable_as_they_grow() {
        let key = hash(b"key");
        for len in [0, 1, 7, 8, 9, 300] {
            let mut value = value_for(key, len);
            assert_eq!(value.len(), len);
            for extra in [0, 1, 3, 8, 21] {
                value = appended(key, value, extra);
                assert!(is_value_of(key, &value), "append {extra} to {len}");
                value = prepended(key, &value, extra);
                assert!(is_value_of(key, &value), "prepend {extra} to {len}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_seen() {
        let key = hash(b"key");
        for at in [0, 8, 29] {
            let mut value = value_for(key, 30);
            value[at] ^= 1;
            assert!(!is_value_of(key, &value), "byte {at}");
        }
        assert!(!is_value_of(hash(b"other"), &value_for(key, 30)));
    }
}
