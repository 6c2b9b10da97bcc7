//! redis.conf syntax: a file of lines, and the same on the command line.
//!
//! ```text
//! # a comment
//! maxmemory 100mb
//! requirepass "with \"quotes\" and \x00 bytes"
//! ```
//! `--maxmemory 100mb` on the command line is such a line. Lines that name what this server does
//! not have are refused: a setting that is silently ignored helps nobody.

use super::Config;
use super::params::Param;
use anyhow::{Context, bail};
use std::fs;
use std::path::Path;

impl Config {
    /// Reads a file over what is set.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is wrong: with its number.
    pub(crate) fn read_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.read_line(line)
                    .with_context(|| format!("{} line {}: {line}", path.display(), i + 1))?;
            }
        }
        self.path = Some(fs::canonicalize(path)?);
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
        let words = split_words(line).context("Unbalanced quotes in configuration line")?;
        let (name, values) = words.split_first().context("an empty line")?;
        self.set_words(name, values)
    }

    fn set_words(&mut self, name: &str, values: &[String]) -> anyhow::Result<()> {
        let param = Param::find(name)
            .with_context(|| format!("Bad directive or wrong number of arguments: {name}"))?;
        if values.is_empty() {
            bail!("{name} needs a value");
        }
        param
            .field
            .set(self, &values.join(" "))
            .map_err(|error| anyhow::anyhow!("{name} {}: {error}", values.join(" ")))
    }
}

/// The words of a line: separated by spaces, or in quotes. In double quotes `\n`, `\r`, `\t`,
/// `\xHH`, `\\` and `\"` have their usual meaning. `None` if a quote is not closed.
pub(crate) fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, end) = match first {
            '"' => quoted_word(rest)?,
            '\'' => {
                let end = rest[1..].find('\'')? + 1;
                (rest[1..end].to_owned(), end + 1)
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), end)
            }
        };
        if rest[end..].chars().next().is_some_and(|next| !next.is_whitespace()) {
            return None;
        }
        words.push(word);
        rest = rest[end..].trim_start();
    }
    Some(words)
}

/// A word in double quotes at the start of `text`, and where it ends.
fn quoted_word(text: &str) -> Option<(String, usize)> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((word, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => word.push('\n'),
                'r' => word.push('\r'),
                't' => word.push('\t'),
                'x' => {
                    let digits: String = [chars.next()?.1, chars.next()?.1].iter().collect();
                    word.push(char::from(u8::from_str_radix(&digits, 16).ok()?));
                }
                other => word.push(other),
            },
            other => word.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        assert_eq!(split_words(r#"a  "b \"c\" \x41" 'd e'"#).unwrap(), ["a", "b \"c\" A", "d e"]);
        assert_eq!(split_words("a \"b"), None);
        assert_eq!(split_words("a \"b\"c"), None);
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
