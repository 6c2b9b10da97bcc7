//! Programs as people write them: well-known crates at their usual work.

use super::Group::Program;
use super::{Outcome, Params, Unit, Workload, random, seconds};
use rand::RngExt;
use rand_distr::Zipf;
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fmt::Write;
use tokio::runtime;
use tokio::sync::mpsc;

/// The workloads of this module.
pub const LIST: &[Workload] = &[
    program("json", &[1], json, "serde_json: parse a document of 100 MB to a `Value`, drop it"),
    program("regex", &[1], regex, "compile 300 patterns, and search a text with each"),
    program("syn", &[1], syn, "parse 2 MB of Rust source to a syntax tree, drop it"),
    program("words", &[1], words, "count the words of 50 MB of text in a HashMap<String, usize>"),
    program(
        "rayon",
        &[2, 8],
        rayon,
        "build strings, sort them, collect them into Vec<Vec<String>>",
    ),
    program("tokio", &[2, 8], tokio, "tasks that pass boxed messages through mpsc channels"),
];

const fn program(
    name: &'static str,
    threads: &'static [usize],
    run: fn(&Params) -> Outcome,
    about: &'static str,
) -> Workload {
    Workload { name, group: Program, unit: Unit::Seconds, threads, about, run }
}

/// A word of `low..=high` letters.
fn push_word(text: &mut String, random: &mut Pcg64Mcg, low: usize, high: usize) {
    let letters = random.random_range(low..=high);
    text.extend((0..letters).map(|_| char::from(b'a' + random.random_range(0..26u8))));
}

fn word(random: &mut Pcg64Mcg, low: usize, high: usize) -> String {
    let mut text = String::new();
    push_word(&mut text, random, low, high);
    text
}

fn json(params: &Params) -> Outcome {
    let document = json_document(params.scale(100_000_000));
    seconds(1, document.len(), || {
        let value: serde_json::Value = serde_json::from_str(&document).expect("valid JSON");
        value.as_array().map_or(0, |records| records.len() as u64)
    })
}

/// An array of records such as a service exchanges.
fn json_document(bytes: usize) -> String {
    let mut random = random(1);
    let mut text = String::with_capacity(bytes + 1000);
    text.push('[');
    while text.len() < bytes {
        let (id, score) = (random.random::<u32>(), random.random_range(0.0..100.0));
        write!(text, r#"{{"id":{id},"score":{score:.3},"active":{},"name":""#, id % 3 == 0)
            .expect("strings take all");
        push_word(&mut text, &mut random, 4, 24);
        text.push_str(r#"","tags":["#);
        for _ in 0..random.random_range(0..6) {
            text.push('"');
            push_word(&mut text, &mut random, 3, 10);
            text.push_str(r#"","#);
        }
        text.push_str(r#""last"],"address":{"street":""#);
        push_word(&mut text, &mut random, 8, 40);
        write!(text, r#"","number":{},"zip":null}}}},"#, id % 200).expect("strings take all");
    }
    text.pop();
    text.push(']');
    text
}

fn regex(params: &Params) -> Outcome {
    let mut random = random(2);
    let patterns: Vec<String> = (0..params.scale(300)).map(|_| pattern(&mut random)).collect();
    let text = text(&mut random, 20_000, 5_000);
    seconds(3, patterns.len(), || {
        let count = |pattern: &String| {
            let regex = regex::Regex::new(pattern).expect("a valid pattern");
            regex.find_iter(&text).count() as u64
        };
        patterns.iter().map(count).sum()
    })
}

/// A pattern out of words, classes, alternatives and repetitions.
fn pattern(random: &mut Pcg64Mcg) -> String {
    let mut pattern = String::from(r"\b");
    for _ in 0..random.random_range(2..6) {
        let (a, b) = (word(random, 1, 3), word(random, 1, 3));
        match random.random_range(0..5) {
            0 => write!(pattern, "(?:{a}|{b})"),
            1 => write!(pattern, "[{a}{b}]+"),
            2 => write!(pattern, r"\w{{1,{}}}", random.random_range(2..8)),
            3 => write!(pattern, "(?i:{a})?"),
            _ => write!(pattern, "({a}|[a-m]{{2,4}}|{b}*)"),
        }
        .expect("strings take all");
    }
    pattern
}

fn syn(params: &Params) -> Outcome {
    let source = rust_source(params.scale(2_000_000));
    seconds(3, source.len(), || syn::parse_file(&source).expect("valid Rust").items.len() as u64)
}

/// Structs, impls and functions with bodies.
fn rust_source(bytes: usize) -> String {
    let mut random = random(3);
    let mut text = String::with_capacity(bytes + 4000);
    let mut item = 0;
    while text.len() < bytes {
        item += 1;
        // With a prefix, so that no word is a keyword.
        let [a, b, c] = [(); 3].map(|()| format!("w_{}", word(&mut random, 2, 10)));
        let n = random.random_range(0..1000);
        write!(
            text,
            "/// About {a}.\n#[derive(Clone, Debug)]\npub struct S{item}<T> {{\n    pub {a}: Vec<T>,\n    \
             {b}_1: Option<Box<dyn Fn(&str, usize) -> Result<T, String>>>,\n    {c}_2: [u8; {n}],\n}}\n\
             impl<T: Clone + Send> S{item}<T> where T: std::fmt::Debug {{\n    /// Does {b}.\n    \
             pub fn {b}(&self, {c}: usize, mut {a}: &mut Vec<T>) -> Option<T> {{\n        \
             let x = self.{a}.iter().filter(|{c}| {c}.len() > {n} + 1).map(|y| y.clone());\n        \
             for (i, z) in x.enumerate() {{\n            if i * {n} == {c} && !{a}.is_empty() {{\n                \
             {a}.push(z.clone());\n            }} else {{\n                \
             match z {{ Some(v) if v > 3 => return Some(v), _ => continue }}\n            }}\n        }}\n        \
             println!(\"{{}} {a}\", {c});\n        None\n    }}\n}}\n\n"
        )
        .expect("strings take all");
    }
    text
}

/// A text of about `bytes` bytes with words of a Zipf-like distribution.
fn text(random: &mut Pcg64Mcg, bytes: usize, vocabulary: usize) -> String {
    let words: Vec<String> = (0..vocabulary).map(|_| word(random, 2, 12)).collect();
    let ranks = Zipf::new(vocabulary as f64, 1.05).expect("valid parameters");
    let mut text = String::with_capacity(bytes + 20);
    while text.len() < bytes {
        text.push_str(&words[random.sample(ranks) as usize - 1]);
        text.push(' ');
    }
    text
}

fn words(params: &Params) -> Outcome {
    let text = text(&mut random(4), params.scale(50_000_000), 200_000);
    seconds(1, text.len(), || {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in text.split_ascii_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        counts.iter().map(|(word, &count)| (word.len() * count * count) as u64).sum()
    })
}

fn rayon(params: &Params) -> Outcome {
    let n = params.scale(400_000);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(params.threads)
        .build()
        .expect("threads can be started");
    seconds(3, n, || {
        pool.install(|| {
            let mut strings: Vec<String> = (0..n)
                .into_par_iter()
                .map(|i| format!("{:x} is number {i}", i.wrapping_mul(0x9E37_79B9) & 0xFFFF_FFFF))
                .collect();
            strings.par_sort();
            let parts: Vec<Vec<String>> = strings.par_chunks(100).map(<[String]>::to_vec).collect();
            drop(strings);
            parts.par_iter().flatten().map(|string| string.len() as u64).sum()
        })
    })
}

/// Channels of the `tokio` workload.
const CHANNELS: usize = 16;

fn tokio(params: &Params) -> Outcome {
    let messages = params.scale(40_000);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(params.threads)
        .build()
        .expect("threads can be started");
    seconds(3, CHANNELS * messages, || {
        runtime.block_on(async {
            let consumers: Vec<_> = (0..CHANNELS as u64)
                .map(|channel| {
                    let (sender, receiver) = mpsc::channel(64);
                    tokio::spawn(produce(sender, channel, messages));
                    tokio::spawn(consume(receiver))
                })
                .collect();
            let mut sum = 0;
            for consumer in consumers {
                sum += consumer.await.expect("no panic");
            }
            sum
        })
    })
}

async fn produce(sender: mpsc::Sender<Box<[u8]>>, seed: u64, messages: usize) {
    let mut random = random(seed);
    for _ in 0..messages {
        let len = random.random_range(32..=512);
        if sender.send(vec![1; len].into_boxed_slice()).await.is_err() {
            return;
        }
    }
}

async fn consume(mut receiver: mpsc::Receiver<Box<[u8]>>) -> u64 {
    let mut bytes = 0;
    while let Some(message) = receiver.recv().await {
        bytes += message.len() as u64;
    }
    bytes
}
