//! What SCAN and HSCAN have in common: cursor, MATCH, COUNT, and patterns as KEYS has them.

use super::fail::int;
use super::{Ctx, Fail};

/// The options of a scan.
pub(crate) struct ScanOptions<'a> {
    /// About how many elements it should meet.
    pub(crate) count: usize,
    /// What they must match.
    pub(crate) pattern: Option<&'a [u8]>,
    /// What kind of value they must have.
    pub(crate) type_name: Option<&'a [u8]>,
}

/// The cursor in an argument: where the scan goes on.
///
/// # Errors
/// Redis's, if it is no number. It reads one with `strtoul`: `+7` and `-1` are cursors as well.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64, Fail> {
    let wrong = Fail::Fixed("ERR invalid cursor");
    let text = std::str::from_utf8(arg).map_err(|_| wrong.clone())?;
    match text.strip_prefix('-') {
        // No sign may follow: `parse` would take one.
        Some(digits) if !digits.starts_with('+') => digits.parse().map(u64::wrapping_neg),
        _ => text.parse(),
    }
    .map_err(|_| wrong)
}

impl<'a> ScanOptions<'a> {
    /// Reads the options from the argument at `index` on; `type_option` is `TYPE` where there is
    /// that.
    ///
    /// # Errors
    /// Redis's, for options that are none.
    pub(crate) fn read(
        ctx: &Ctx<'a>,
        index: usize,
        type_option: Option<&str>,
    ) -> Result<Self, Fail> {
        let args = ctx.args;
        let mut options = Self { count: 10, pattern: None, type_name: None };
        for at in (index..args.len()).step_by(2) {
            let value = args.get(at + 1).ok_or(Fail::SYNTAX)?;
            if ctx.arg_is(at, "match") {
                options.pattern = Some(value).filter(|it| *it != b"*");
            } else if ctx.arg_is(at, "count") {
                let count = int(value)?;
                options.count =
                    usize::try_from(count).ok().filter(|it| *it > 0).ok_or(Fail::SYNTAX)?;
            } else if type_option.is_some_and(|word| ctx.arg_is(at, word)) {
                options.type_name = Some(value);
            } else {
                return Err(Fail::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether a key or field is wanted.
    pub(crate) fn wants(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| matches(pattern, name))
    }
}

/// Whether `text` matches a pattern: `*`, `?`, `[a-z]`, `[^a]`, and `\` before what is meant
/// literally. Takes at most the product of both lengths, whatever the pattern.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = match_one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (p, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether one byte matches what stands at `p`, and where that ends.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

fn match_class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match pattern.get(p) {
            // A class that is not closed ends with the pattern.
            None => break,
            Some(b']') => {
                p += 1;
                break;
            }
            Some(b'\\') if p + 1 < pattern.len() => {
                found |= pattern[p + 1] == byte;
                p += 2;
            }
            Some(first) if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let last = pattern[p + 2];
                let (low, high) = (*first.min(&last), *first.max(&last));
                found |= (low..=high).contains(&byte);
                p += 3;
            }
            Some(one) => {
                found |= *one == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("a", "ab", false),
            ("a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }
}
