//! Programs that are installed, with work for their allocators.

use crate::support::{Kind, folder, installed, of_each_kind, preloaded};
use std::ffi::OsString;
use std::fs;

of_each_kind! { python git gcc cargo perl sqlite node }

fn python(kind: Kind) {
    const SCRIPT: &str = "
import subprocess, sys, threading
d = {f'key {i}': f'value {i}' * (i % 5) for i in range(1_000_000)}
for i in range(0, 1_000_000, 3): del d[f'key {i}']
assert len(d) == 666_666 and d['key 1000'] == 'value 1000' * 0 and d['key 4'] == 'value 4' * 4
sums = []
def work(n):
    lists = [[str(j) for j in range(i % 50)] for i in range(20_000)]
    sums.append(sum(map(len, lists)))
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert sums == [490_000] * 4, sums
out = subprocess.run([sys.executable, '-c', 'print(sum(len(str(i)) for i in range(100_000)))'],
                     capture_output=True, text=True, check=True).stdout
print(out.strip(), sum(map(len, d.values())))
";
    if !installed("python3") {
        return;
    }
    // Python's own allocator asks for pages; without it every object is a block.
    for objects in ["pymalloc", "malloc"] {
        if kind == Kind::Sampled && objects == "malloc" {
            // Nearly every object: minutes.
            continue;
        }
        let run = preloaded(kind, "python3").args(["-c", SCRIPT]).env("PYTHONMALLOC", objects);
        let run = run.run().ok();
        let length =
            |i: usize| if i.is_multiple_of(3) { 0 } else { format!("value {i}").len() * (i % 5) };
        let expected: usize = (0..1_000_000).map(length).sum();
        assert_eq!(run.stdout, format!("488890 {expected}\n"), "{}", run.told());
    }
}

fn git(kind: Kind) {
    if !installed("git") {
        return;
    }
    let folder = folder();
    let git = |args: &[&str]| {
        let run = preloaded(kind, "git")
            .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"])
            .args(args)
            .env("HOME", folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .within(folder.path());
        run.run().ok().stdout
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    for commit in 0..3 {
        for file in 0..200 {
            let text: String = (0..100)
                .map(|line| format!("line {line} of {file}, {}\n", line * commit))
                .collect();
            let name = folder.path().join(format!("{file}.txt"));
            fs::write(name, text).expect("a file is written");
        }
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", &format!("commit {commit}")]);
    }
    assert_eq!(git(&["log", "--format=%s"]), "commit 2\ncommit 1\ncommit 0\n");
    git(&["gc", "--quiet"]);
    git(&["fsck", "--full", "--strict"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    let stat = git(&["diff", "--shortstat", "HEAD~2", "HEAD"]);
    assert_eq!(stat.trim(), "200 files changed, 19800 insertions(+), 19800 deletions(-)");
    let packed = git(&["count-objects", "-v"]);
    // 600 files, 3 trees, 3 commits.
    assert!(packed.contains("count: 0\n") && packed.contains("in-pack: 606\n"), "{packed}");
}

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(void) {
    int n = 1000, *a = malloc(n * sizeof *a);
    for (int i = 0; i < n; i++) a[i] = i * 7919 % n;
    qsort(a, n, sizeof *a, compare);
    printf("%d %d\n", a[0], a[n - 1]);
    free(a);
}
"#;

const CXX: &str = r#"
#include <iostream>
#include <regex>
#include <string>
int main() {
    std::string text = "one 1, two 22, three 333";
    std::regex number("([a-z]+) ([0-9]+)");
    for (std::sregex_iterator i(text.begin(), text.end(), number), end; i != end; ++i)
        std::cout << (*i)[2] << (*i)[1] << '\n';
}
"#;

fn gcc(kind: Kind) {
    for (compiler, source, text, expected) in
        [("gcc", "a.c", C, "0 999\n"), ("g++", "a.cpp", CXX, "1one\n22two\n333three\n")]
    {
        if !installed(compiler) {
            continue;
        }
        let folder = folder();
        fs::write(folder.path().join(source), text).expect("a file is written");
        let build =
            preloaded(kind, compiler).args(["-O2", "-o", "a", source]).within(folder.path());
        // Driver, compiler, assembler, linker.
        let run = build.run().ok();
        assert!(run.stderr.matches("tallow: process ").count() >= 3, "{}", run.told());
        let run = preloaded(kind, folder.path().join("a")).run().ok();
        assert_eq!(run.stdout, expected, "{}", run.told());
    }
}

fn cargo(kind: Kind) {
    let cargo = std::env::var_os("CARGO").unwrap_or(OsString::from("cargo"));
    let folder = folder();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file is written");
    };
    fs::create_dir(folder.path().join("src")).expect("a folder");
    write("Cargo.toml", "[package]\nname = \"small\"\nedition = \"2021\"\n[workspace]\n");
    let module: String = (0..200)
        .map(|i| format!("pub fn f{i}(v: &[u64]) -> u64 {{ v.iter().map(|x| x * {i}).sum() }}\n"))
        .collect();
    write("src/many.rs", &module);
    write(
        "src/main.rs",
        "mod many;
        use std::collections::BTreeMap;
        fn main() {
            let map: BTreeMap<String, u64> = (0..1000).map(|i| (format!(\"{i}\"), i)).collect();
            let values: Vec<u64> = map.into_values().collect();
            println!(\"{}\", many::f3(&values));
        }",
    );
    let run = preloaded(kind, cargo)
        .args(["build", "--offline"])
        .within(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .env("CARGO_INCREMENTAL", "0");
    run.run().ok();
    let built = folder.path().join("target/debug/small");
    assert_eq!(preloaded(kind, built).run().ok().stdout, "1498500\n");
}

fn perl(kind: Kind) {
    const SCRIPT: &str = "
my %h; $h{$_ % 50000} .= \"x$_\" for 1 .. 500000;
my $n = 0; $n += length for values %h;
my @sorted = sort { $a <=> $b } keys %h;
my $text = join ',', map { $_ * 2 } @sorted; my $sum = 0; $sum += $_ for split /,/, $text;
print scalar(@sorted), \" $n $sum\\n\";
";
    if !installed("perl") {
        return;
    }
    let run = preloaded(kind, "perl").args(["-we", SCRIPT]).run().ok();
    // 500000 times x, and all digits of 1 to 500000.
    let digits: usize = (1..=500_000).map(|i: u32| i.to_string().len()).sum();
    assert_eq!(run.stdout, format!("50000 {} 2499950000\n", 500_000 + digits), "{}", run.told());
}

fn sqlite(kind: Kind) {
    if !installed("sqlite3") {
        return;
    }
    let rows = kind.part_of(1_000_000);
    let script = format!(
        "
create table t(id integer primary key, name text, n integer);
begin;
with recursive c(i) as (select 1 union all select i + 1 from c where i < {rows})
insert into t select i, 'name ' || (i * 7919 % 1000003), i % 1000 from c;
commit;
create index by_name on t(name);
select count(*), sum(n), sum(length(name)) > 10 * count(*) from t;
select id from t where name = 'name 7919';
delete from t where n < 900;
select count(*) from t;
pragma integrity_check;
"
    );
    let run = preloaded(kind, "sqlite3").args([":memory:"]).input(&script).run().ok();
    let (sum, left) = (u64::from(rows) * 999 / 2, rows / 10);
    assert_eq!(run.stdout, format!("{rows}|{sum}|1\n1\n{left}\nok\n"), "{}", run.told());
}

fn node(kind: Kind) {
    const SCRIPT: &str = "
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
function work(n) {
    const rows = [];
    for (let i = 0; i < 50000; i++) rows.push({ id: i, name: 'row ' + i, list: [i, i + n] });
    const back = JSON.parse(JSON.stringify(rows));
    const buffers = [];
    for (let i = 0; i < 2000; i++) buffers.push(Buffer.alloc(1 + (i * 37) % 20000, 7));
    let sum = 0;
    for (const b of buffers) sum += b[b.length - 1];
    for (const row of back) sum += row.list[1] - row.id;
    return sum;
}
if (isMainThread) {
    const results = [work(1)];
    for (let n = 2; n <= 4; n++) {
        const worker = new Worker(process.argv[1], { workerData: n });
        worker.on('message', sum => {
            results.push(sum);
            if (results.length === 4) console.log(results.sort((a, b) => a - b).join(' '));
        });
    }
} else {
    parentPort.postMessage(work(workerData));
}
";
    if !installed("node") {
        return;
    }
    let folder = folder();
    let script = folder.path().join("script.js");
    fs::write(&script, SCRIPT).expect("a file is written");
    let run = preloaded(kind, "node").args([script]).run().ok();
    assert_eq!(run.stdout, "64000 114000 164000 214000\n", "{}", run.told());
}
