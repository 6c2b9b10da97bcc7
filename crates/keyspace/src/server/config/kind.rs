//! Kinds of parameters: how their text is read, checked and written.

use super::Config;
use crate::server::db::evict::Policy;

/// A limit on the output buffers of a class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputLimit {
    /// Above this the client is cut off at once; 0 is no limit.
    pub(crate) hard_bytes: u64,
    /// Above this it is cut off after a while; 0 is no limit.
    pub(crate) soft_bytes: u64,
    /// After how long.
    pub(crate) soft_seconds: u64,
}

/// An amount of memory: as it is, or as a part of `maxmemory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of `maxmemory`.
    Percent(u64),
}

impl Default for Share {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl Share {
    /// How much that is; 0 for no limit.
    pub(crate) fn bytes(self, maxmemory_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (maxmemory_bytes / 100).saturating_mul(percent),
        }
    }
}

/// The most that limits may be: they are added to other bytes, and multiplied to milliseconds.
const MAX_LIMIT_BYTES: u64 = i64::MAX as u64;
const MAX_LIMIT_SECONDS: u64 = i32::MAX as u64;

/// The classes of clients, in the order of the configuration.
pub(crate) const CLIENT_CLASSES: [&str; 3] = ["normal", "replica", "pubsub"];

/// Where a parameter is kept, and what it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    /// `yes` or `no`.
    Bool(fn(&mut Config) -> &mut bool),
    /// A whole number from .. to.
    Int(fn(&mut Config) -> &mut i64, i64, i64),
    /// Bytes, with units, from .. to.
    Bytes(fn(&mut Config) -> &mut u64, u64, u64),
    /// Bytes, or a part of `maxmemory`.
    Share(fn(&mut Config) -> &mut Share),
    /// Permissions of a file, in octal digits; 0 for what it gets by itself.
    Octal(fn(&mut Config) -> &mut u32),
    /// Any text.
    Text(fn(&mut Config) -> &mut String),
    /// One of some words, kept as its index.
    Word(fn(&mut Config) -> &mut usize, &'static [&'static str]),
    /// The eviction policy.
    Policy(fn(&mut Config) -> &mut Policy),
    /// Limits on output buffers: four words for each class.
    OutputLimits(fn(&mut Config) -> &mut [OutputLimit; 3]),
}

impl Field {
    /// Reads `text` into the configuration.
    ///
    /// # Errors
    /// What is wrong with it, in Redis's words.
    pub(crate) fn set(self, config: &mut Config, text: &str) -> Result<(), String> {
        match self {
            Self::Bool(at) => {
                *at(config) = match text.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err("argument must be 'yes' or 'no'".to_owned()),
                }
            }
            Self::Int(at, least, most) => {
                let number: i64 = text
                    .parse()
                    .map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
                if !(least..=most).contains(&number) {
                    return Err(format!("argument must be between {least} and {most} inclusive"));
                }
                *at(config) = number;
            }
            Self::Bytes(at, least, most) => {
                let bytes = parse_bytes(text).ok_or("argument must be a memory value")?;
                if !(least..=most).contains(&bytes) {
                    return Err(format!("argument must be between {least} and {most} inclusive"));
                }
                *at(config) = bytes;
            }
            Self::Share(at) => {
                *at(config) = match text.strip_suffix('%').map(str::parse) {
                    Some(Ok(percent @ 0..=100)) => Share::Percent(percent),
                    Some(_) => return Err("argument must be a memory or percent value".to_owned()),
                    None => Share::Bytes(
                        parse_bytes(text).ok_or("argument must be a memory or percent value")?,
                    ),
                }
            }
            Self::Octal(at) => {
                let number = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
                *at(config) = number.ok_or("argument must be permissions in octal digits")?;
            }
            Self::Text(at) => text.clone_into(at(config)),
            Self::Word(at, words) => {
                *at(config) = words
                    .iter()
                    .position(|word| word.eq_ignore_ascii_case(text))
                    .ok_or_else(|| one_of(words.iter().copied()))?;
            }
            Self::Policy(at) => {
                *at(config) = Policy::NAMES
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(text))
                    .ok_or_else(|| one_of(Policy::NAMES.iter().map(|(name, _)| *name)))?
                    .1;
            }
            Self::OutputLimits(at) => {
                *at(config) = parse_output_limits(text, *at(config))?;
            }
        }
        Ok(())
    }

    /// The text of its value.
    pub(crate) fn get(self, config: &mut Config) -> String {
        match self {
            Self::Bool(at) => if *at(config) { "yes" } else { "no" }.to_owned(),
            Self::Int(at, ..) => at(config).to_string(),
            Self::Bytes(at, ..) => at(config).to_string(),
            Self::Share(at) => match at(config) {
                Share::Bytes(bytes) => bytes.to_string(),
                Share::Percent(percent) => format!("{percent}%"),
            },
            Self::Octal(at) => format!("{:o}", at(config)),
            Self::Text(at) => at(config).clone(),
            Self::Word(at, words) => words[*at(config)].to_owned(),
            Self::Policy(at) => {
                let policy = *at(config);
                let name = Policy::NAMES.iter().find(|(_, it)| *it == policy);
                name.map_or("", |(name, _)| name).to_owned()
            }
            Self::OutputLimits(at) => {
                let limits = at(config).iter().zip(["normal", "slave", "pubsub"]);
                let texts: Vec<String> = limits
                    .map(|(limit, class)| {
                        let OutputLimit { hard_bytes, soft_bytes, soft_seconds } = limit;
                        format!("{class} {hard_bytes} {soft_bytes} {soft_seconds}")
                    })
                    .collect();
                texts.join(" ")
            }
        }
    }
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    format!("argument(s) must be one of the following: {}", words.join(", "))
}

/// A number of bytes with a unit as in redis.conf: `1k` is 1000, `1kb` is 1024.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn parse_output_limits(
    text: &str,
    mut limits: [OutputLimit; 3],
) -> Result<[OutputLimit; 3], String> {
    const WRONG: &str = "Wrong number of arguments in buffer limit configuration.";
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err(WRONG.to_owned());
    }
    for part in words.chunks(4) {
        let class = match part[0].to_ascii_lowercase().as_str() {
            "slave" => Some(1),
            name => CLIENT_CLASSES.iter().position(|class| *class == name),
        };
        let class = class.ok_or("Invalid client class specified in buffer limit configuration.")?;
        let bytes = |text| parse_bytes(text).filter(|bytes| *bytes <= MAX_LIMIT_BYTES);
        let seconds = |text: &str| text.parse().ok().filter(|it| *it <= MAX_LIMIT_SECONDS);
        let numbers = (bytes(part[1]), bytes(part[2]), seconds(part[3]));
        let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) = numbers else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit \
                        configuration."
                .to_owned());
        };
        limits[class] = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_redis() {
        assert_eq!(parse_bytes("100"), Some(100));
        assert_eq!(parse_bytes("1K"), Some(1000));
        assert_eq!(parse_bytes("1kb"), Some(1024));
        assert_eq!(parse_bytes("3gb"), Some(3 << 30));
        assert_eq!(parse_bytes("1kib"), None);
        assert_eq!(parse_bytes("-1"), None);
        assert_eq!(parse_bytes("99999999999gb"), None);
    }

    #[test]
    fn limits_are_those_that_can_be_counted_with() {
        let none = [OutputLimit::default(); 3];
        let most = parse_output_limits("normal 9223372036854775807 1 2147483647", none);
        assert_eq!(most.expect("the most")[0].soft_seconds, MAX_LIMIT_SECONDS);
        for text in [
            "normal 9223372036854775808 0 0",
            "normal 0 9223372036854775808 0",
            "normal 0 1 2147483648",
            "normal 0 1 -1",
        ] {
            assert!(parse_output_limits(text, none).is_err(), "{text}");
        }
    }
}
