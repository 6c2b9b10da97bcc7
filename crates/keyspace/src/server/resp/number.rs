//! Numbers as the protocol and the values have them: decimal text.

/// The longest decimal text of an `i64`.
pub(crate) const MAX_DIGITS: usize = 20;

/// The number that `text` is in its one canonical form (no spaces, no `+`, no leading zeros), as
/// Redis requires wherever it reads an integer: the text can be had back from the number.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < MAX_DIGITS => {}
        _ => return None,
    }
    // Summed up below zero, where there is one number more.
    let mut sum = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(sum) } else { sum.checked_neg() }
}

/// Decimal text on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Digits {
    text: [u8; MAX_DIGITS],
    start: usize,
}

impl Digits {
    /// The text of `number`.
    pub(crate) fn of(number: i64) -> Self {
        let mut digits = Self { text: [0; MAX_DIGITS], start: MAX_DIGITS };
        let mut rest = number.unsigned_abs();
        loop {
            digits.start -= 1;
            digits.text[digits.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            digits.start -= 1;
            digits.text[digits.start] = b'-';
        }
        digits
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_numbers_are_numbers() {
        for text in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808", "42"] {
            let number = parse_i64(text.as_bytes()).unwrap();
            assert_eq!(number.to_string(), text);
            assert_eq!(Digits::of(number).as_bytes(), text.as_bytes());
        }
        for text in
            ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "9223372036854775808", "1e3", "0x1"]
        {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }
}
