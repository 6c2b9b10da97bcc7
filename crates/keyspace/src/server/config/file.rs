//! redis.conf syntax: a file of lines, and the same on the command line.
//!
//! ```text
//! # a comment
//! maxmemory 100mb
//! requirepass "with \"quotes\" and \x00 bytes"
//! ```
//! `--maxmemory 100mb` on the command line is such a line. Lines that name what this server does
//! not have are refused: a setting that is silently ignored helps nobody. Some say nothing here,
//! and are listed when the server starts ([`unused`]). `include FILE` reads another file in the place
//! of the line.

use super::Config;
use super::params::Param;
use super::unused;
use anyhow::{Context, anyhow, bail};
use std::fs;
use std::path::Path;

/// So deep may files include each other.
const MAX_DEPTH: usize = 16;
const UNBALANCED: &str = "Unbalanced quotes in configuration line";

impl Config {
    /// Reads a file over what is set.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is wrong: with its number.
    pub(crate) fn read_file(&mut self, path: &Path) -> anyhow::Result<()> {
        self.read_lines(path, 0)?;
        self.path = Some(fs::canonicalize(path)?);
        Ok(())
    }

    fn read_lines(&mut self, path: &Path, depth: usize) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = match included(line) {
                Some(_) if depth == MAX_DEPTH => Err(anyhow!("files that include each other")),
                Some(other) => self.read_lines(Path::new(&other), depth + 1),
                None => self.read_line(line),
            };
            read.with_context(|| format!("{} line {}: {line}", path.display(), i + 1))?;
        }
        Ok(())
    }

    /// Reads words as the command line has them: `--name value value --name value`.
    ///
    /// # Errors
    /// If a word is out of place, or a value is wrong.
    pub(crate) fn read_words(&mut self, words: &[String]) -> anyhow::Result<()> {
        let mut rest = words;
        while let Some((first, values)) = rest.split_first() {
            let Some(name) = first.strip_prefix("--") else {
                bail!("{first:?} does not belong to an option; options begin with --");
            };
            let count = values.iter().take_while(|word| !word.starts_with("--")).count();
            self.set_words(name, &values[..count])?;
            rest = &values[count..];
        }
        Ok(())
    }

    pub(super) fn read_line(&mut self, line: &str) -> anyhow::Result<()> {
        let words = split_words(line).map_err(anyhow::Error::msg)?;
        let (name, values) = words.split_first().context("an empty line")?;
        self.set_words(name, values)
    }

    fn set_words(&mut self, name: &str, values: &[String]) -> anyhow::Result<()> {
        let value = values.join(" ");
        let is_wrong = |why| anyhow!("{name} {value}: {why}");
        if let Some(unused) = unused::find(name, &value) {
            self.unused.push(unused.map_err(is_wrong)?);
            return Ok(());
        }
        let param = Param::find(name)
            .with_context(|| format!("Bad directive or wrong number of arguments: {name}"))?;
        if values.is_empty() {
            bail!("{name} needs a value");
        }
        param.field.set(self, &value).map_err(is_wrong)
    }
}

/// The file that a line includes.
fn included(line: &str) -> Option<String> {
    let words = split_words(line).ok()?;
    let [name, path] = <[String; 2]>::try_from(words).ok()?;
    name.eq_ignore_ascii_case("include").then_some(path)
}

/// The words of a line: separated by spaces, or in quotes. In double quotes `\n`, `\r`, `\t`,
/// `\xHH`, `\\` and `\"` have their usual meaning.
///
/// # Errors
/// If a quote is not closed, or bytes are named that are no text.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, end) = match first {
            '"' => quoted_word(rest)?,
            '\'' => {
                let end = rest[1..].find('\'').ok_or(UNBALANCED)? + 1;
                (rest[1..end].to_owned(), end + 1)
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), end)
            }
        };
        if rest[end..].chars().next().is_some_and(|next| !next.is_whitespace()) {
            return Err(UNBALANCED);
        }
        words.push(word);
        rest = rest[end..].trim_start();
    }
    Ok(words)
}

/// A word in double quotes at the start of `text`, and where it ends.
fn quoted_word(text: &str) -> Result<(String, usize), &'static str> {
    let (bytes, mut word, mut at) = (text.as_bytes(), Vec::new(), 1);
    loop {
        let (byte, length) = match bytes.get(at) {
            None => return Err(UNBALANCED),
            Some(b'"') => {
                let word = String::from_utf8(word);
                return Ok((word.map_err(|_| "The value is not UTF-8 text")?, at + 1));
            }
            Some(b'\\') => escape(&bytes[at..]).ok_or(UNBALANCED)?,
            Some(byte) => (*byte, 1),
        };
        word.push(byte);
        at += length;
    }
}

/// The byte that a backslash and what follows stand for, and how long that is.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    Some(match text.get(1)? {
        b'n' => (b'\n', 2),
        b'r' => (b'\r', 2),
        b't' => (b'\t', 2),
        b'x' => {
            let digits = str::from_utf8(text.get(2..4)?).ok()?;
            (u8::from_str_radix(digits, 16).ok()?, 4)
        }
        other => (*other, 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        assert_eq!(split_words(r#"a  "b \"c\" \x41" 'd e'"#).unwrap(), ["a", "b \"c\" A", "d e"]);
        for wrong in ["a \"b", "a \"b\"c", "'a", r#""a\"#, r#""\x4"#, r#""\xgg""#] {
            assert_eq!(split_words(wrong), Err(UNBALANCED), "{wrong}");
        }
        // Bytes are bytes: these are one letter, and those none.
        assert_eq!(split_words(r#""\xc3\xa9é" "\é""#).unwrap(), ["éé", "é"]);
        assert!(split_words(r#"requirepass "\xff""#).is_err_and(|why| why.contains("UTF-8")));
    }

    #[test]
    fn files_include_others_in_the_place_of_the_line() {
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("written");
        write("b.conf", "hz 30\nmaxmemory 1mb\n");
        write("a.conf", &format!("hz 20\ninclude {}\nmaxmemory 2mb\n", at("b.conf").display()));
        let mut config = Config::new();
        config.read_file(&at("a.conf")).expect("both are right");
        assert_eq!((config.hz, config.maxmemory), (30, 2 << 20));
        assert_eq!(config.path, Some(fs::canonicalize(at("a.conf")).expect("it is there")));
        write("b.conf", "nonsense 1\n");
        let error = format!("{:#}", config.read_file(&at("a.conf")).expect_err("it is wrong"));
        assert!(error.contains("a.conf line 2") && error.contains("b.conf line 1"), "{error}");
        write("b.conf", &format!("include {}\n", at("a.conf").display()));
        let error = config.read_file(&at("a.conf")).expect_err("there is no end");
        assert!(format!("{error:#}").ends_with("files that include each other"), "{error:#}");
    }

    #[test]
    fn what_says_nothing_here_is_noted_and_what_would_is_refused() {
        let mut config = Config::new();
        let stock = [
            "daemonize no",
            "logfile \"\"",
            "dir ./",
            "appendfsync everysec",
            "hz 20",
            "notify-keyspace-events \"\"",
        ];
        stock.iter().for_each(|line| config.read_line(line).expect("it is taken"));
        assert_eq!(
            config.unused,
            ["daemonize", "logfile", "dir", "appendfsync", "notify-keyspace-events"]
        );
        for line in ["daemonize yes", "notify-keyspace-events KEA", "replicaof a 1", "user a on"] {
            let error = config.read_line(line).expect_err("it would matter").to_string();
            let name = line.split(' ').next().expect("a name");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_command_line_is_lines_of_the_file() {
        let mut config = Config::new();
        let words = [
            "--maxmemory",
            "100mb",
            "--save",
            "",
            "--client-output-buffer-limit",
            "pubsub",
            "1mb",
            "0",
            "0",
        ];
        config.read_words(&words.map(str::to_owned)).unwrap();
        assert_eq!(config.maxmemory, 100 << 20);
        assert_eq!(config.client_output_buffer_limit[2].hard_bytes, 1 << 20);
        assert!(config.read_words(&["--nonsense".to_owned(), "1".to_owned()]).is_err());
        assert!(config.read_words(&["--port".to_owned(), "70000".to_owned()]).is_err());
    }
}
