//! Errors of commands, in Redis's words: clients look at them.

use crate::server::resp::long_double::LongDouble;
use crate::server::resp::number::parse_i64;
use std::fmt;

/// What a handler returns; an error becomes the reply.
pub(crate) type Handled = Result<(), Fail>;

/// An error reply, its code first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// One that is always the same.
    Fixed(&'static str),
    /// One that cites.
    Text(String),
}

impl Fail {
    pub(crate) const WRONG_TYPE: Self =
        Self::Fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub(crate) const SYNTAX: Self = Self::Fixed("ERR syntax error");
    pub(crate) const NOT_INT: Self = Self::Fixed("ERR value is not an integer or out of range");
    pub(crate) const NOT_FLOAT: Self = Self::Fixed("ERR value is not a valid float");
    pub(crate) const OVERFLOW: Self = Self::Fixed("ERR increment or decrement would overflow");
    pub(crate) const NOT_FINITE: Self = Self::Fixed("ERR increment would produce NaN or Infinity");
    pub(crate) const NO_KEY: Self = Self::Fixed("ERR no such key");
    pub(crate) const OUT_OF_RANGE: Self = Self::Fixed("ERR index out of range");
    pub(crate) const NEGATIVE: Self = Self::Fixed("ERR value is out of range, must be positive");
    pub(crate) const TOO_LONG: Self =
        Self::Fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub(crate) const NO_AUTH: Self = Self::Fixed("NOAUTH Authentication required.");
    pub(crate) const OOM: Self =
        Self::Fixed("OOM command not allowed when used memory > 'maxmemory'.");

    /// Too few or too many arguments.
    pub(crate) fn arity(name: &str) -> Self {
        Self::Text(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// An expiry that cannot be.
    pub(crate) fn expire_time(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name).to_lowercase();
        Self::Text(format!("ERR invalid expire time in '{name}' command"))
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(text) => text,
            Self::Text(text) => text,
        })
    }
}

/// An argument that is a whole number.
pub(crate) fn int(arg: &[u8]) -> Result<i64, Fail> {
    parse_i64(arg).ok_or(Fail::NOT_INT)
}

/// An argument that is a number.
pub(crate) fn float(arg: &[u8]) -> Result<LongDouble, Fail> {
    LongDouble::parse(arg).ok_or(Fail::NOT_FLOAT)
}

/// What comes of start and stop in a sequence of `len`: the first, and how many. Negative ones
/// count from the end.
pub(crate) fn range(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let first = from_end(start);
    // Stop before the beginning is an empty range, not the first element.
    let last = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
    if first > last || first >= len {
        return (0, 0);
    }
    (first as usize, (last - first + 1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range(0, -1, 5), (0, 5));
        assert_eq!(range(-3, -2, 5), (2, 2));
        assert_eq!(range(-100, 100, 5), (0, 5));
        assert_eq!(range(3, 1, 5), (0, 0));
        assert_eq!(range(5, 9, 5), (0, 0));
        assert_eq!(range(0, -100, 5), (0, 0));
        assert_eq!(range(0, -1, 0), (0, 0));
        assert_eq!(range(i64::MIN, i64::MAX, 5), (0, 5));
    }
}
