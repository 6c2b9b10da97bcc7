//! The numbers of INCRBYFLOAT: Redis counts in C's `long double`, which on x86 has 64 bits of
//! mantissa, and writes 17 digits behind the point. So 0.1 + 0.2 is 0.3 there, not the
//! 0.30000000000000004 of a double.
//!
//! Rust has no such type; `rustc_apfloat`, which the compiler computes constants with, does it in
//! software. It reads and adds; the text is made here, from the bits.

use rustc_apfloat::Float;
use rustc_apfloat::ieee::X87DoubleExtended;
use std::fmt::{self, Write};

/// The longest text that is read as a number, as in Redis.
const MAX_TEXT_BYTES: usize = 5 * 1024;
/// Digits behind the point that are written.
const DECIMALS: usize = 17;
const DECIMALS_SCALE: u128 = 10u128.pow(DECIMALS as u32);
/// Decimal digits in one limb of a long number.
const LIMB: u64 = 1_000_000_000;
/// What the exponent's bits say too much; the point stands behind 63 bits of the mantissa.
const EXPONENT_BIAS: i32 = 16383 + 63;

/// A number with a mantissa of 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// Zero.
    pub(crate) const ZERO: Self = Self(X87DoubleExtended::ZERO);

    /// The number that `text` is: no spaces, no NaN, nothing too large or too small to be told
    /// from infinity or zero. Infinity itself and hexadecimal digits are numbers.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= MAX_TEXT_BYTES {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
        let (sign, digits) = match text.as_bytes() {
            [b'-', ..] => ("-", &text[1..]),
            [b'+', ..] => ("", &text[1..]),
            _ => ("", &*text),
        };
        if matches!(digits, "inf" | "infinity") {
            return format!("{sign}inf").parse().ok().map(Self);
        }
        let is_hex = digits.starts_with("0x");
        if !is_number(digits, is_hex) {
            return None;
        }
        let exponent = if is_hex && !digits.contains('p') { "p0" } else { "" };
        let number: X87DoubleExtended = format!("{sign}{digits}{exponent}").parse().ok()?;
        let (mark, start) = if is_hex { ('p', 2) } else { ('e', 0) };
        let mantissa = digits[start..].split(mark).next().unwrap_or_default();
        let says_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        (number.is_finite() && number.is_zero() == says_zero).then_some(Self(number))
    }

    /// Whether it is not infinite.
    pub(crate) fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// The sum; `None` if that is no finite number.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let sum = (self.0 + other.0).value;
        sum.is_finite().then_some(Self(sum))
    }
}

/// Whether this is a number without a sign, as C writes one: digits with a point among them, and an
/// exponent, which is short enough for one that leads to a number.
fn is_number(text: &str, is_hex: bool) -> bool {
    let (mark, text) = if is_hex { ('p', &text[2..]) } else { ('e', text) };
    let (mantissa, exponent) = match text.split_once(mark) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_digit = |c: char| if is_hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
    let points = mantissa.matches('.').count();
    points <= 1
        && mantissa.len() > points
        && mantissa.chars().all(|c| c == '.' || is_digit(c))
        && exponent.is_none_or(|exponent| {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

impl fmt::Display for LongDouble {
    /// All digits before the point, up to 17 behind it, without zeros at the end. The number must
    /// be finite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.to_bits();
        let mantissa = bits as u64;
        let exponent = (bits >> 64 & 0x7fff) as i32 - EXPONENT_BIAS;
        let (mut whole, decimals) = if exponent >= 0 {
            (Digits::of(mantissa, exponent as u32), 0)
        } else {
            let (whole, decimals) = split(mantissa, exponent.unsigned_abs());
            (Digits::of(whole, 0), decimals)
        };
        // Rounding may have carried over.
        if decimals == DECIMALS_SCALE {
            whole = split(mantissa, exponent.unsigned_abs())
                .0
                .checked_add(1)
                .map_or(whole, |it| Digits::of(it, 0));
        }
        let mut text = whole.to_string();
        if decimals != 0 && decimals != DECIMALS_SCALE {
            write!(text, ".{decimals:0DECIMALS$}")?;
            text.truncate(text.trim_end_matches('0').len());
        }
        if bits >> 79 & 1 == 1 && text != "0" {
            f.write_str("-")?;
        }
        f.write_str(&text)
    }
}

/// `mantissa / 2^shift`: the whole part, and the first 17 decimals, rounded to the nearest, to even
/// ones in the middle.
fn split(mantissa: u64, shift: u32) -> (u64, u128) {
    let whole = mantissa.checked_shr(shift).unwrap_or(0);
    let rest = if shift < 64 { mantissa & ((1 << shift) - 1) } else { mantissa };
    // 64 bits times 57 bits.
    let scaled = u128::from(rest) * DECIMALS_SCALE;
    let decimals = scaled.checked_shr(shift).unwrap_or(0);
    let (left, half) = match shift {
        0..=127 => (scaled & ((1 << shift) - 1), 1 << (shift - 1)),
        // Less than half of the last digit in any case.
        _ => (0, 1),
    };
    let up = left > half || (left == half && decimals % 2 == 1);
    (whole, decimals + u128::from(up))
}

/// A long whole number in limbs of nine decimal digits, the lowest first.
struct Digits(Vec<u64>);

impl Digits {
    /// `mantissa * 2^shift`.
    fn of(mantissa: u64, shift: u32) -> Self {
        let mut limbs = vec![mantissa % LIMB, mantissa / LIMB % LIMB, mantissa / LIMB / LIMB];
        let mut left = shift;
        while left > 0 {
            let step = left.min(32);
            let mut carry = 0;
            for limb in &mut limbs {
                let product = (*limb << step) + carry;
                (*limb, carry) = (product % LIMB, product / LIMB);
            }
            while carry > 0 {
                limbs.push(carry % LIMB);
                carry /= LIMB;
            }
            left -= step;
        }
        Self(limbs)
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.0.iter().rev().skip_while(|limb| **limb == 0);
        write!(f, "{}", limbs.next().unwrap_or(&0))?;
        limbs.try_for_each(|limb| write!(f, "{limb:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> LongDouble {
        LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn text_as_printf_writes_it() {
        for (text, wanted) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("1.5e3", "1500"),
            ("10.50", "10.5"),
            (".1", "0.1"),
            ("-3.", "-3"),
            ("0x1f.8", "31.5"),
            ("0.999999999999999999", "1"),
            ("-0.000000000000000001", "0"),
            ("1e-4900", "0"),
            ("5.0e-17", "0.00000000000000005"),
            ("3.14159265358979323846", "3.14159265358979324"),
            ("1e30", "1000000000000000000024696061952"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(number(text).to_string(), wanted, "{text}");
        }
        assert_eq!(number("1.1e4932").to_string().len(), 4933);
        assert_eq!(
            number("0.1").plus(number("0.2")).map(|sum| sum.to_string()).as_deref(),
            Some("0.3")
        );
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "",
            "1e99999999999",
            ".",
            "0x1p",
            " 1",
            "1 ",
            "nan",
            "-",
            "+-1",
            "1e",
            "1e5000",
            "1e-5000",
            "abc",
            "0x",
            "--1",
            "infin",
            "1.2.3",
        ] {
            assert!(LongDouble::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(number("-inf").plus(number("1")).is_none());
    }
}
