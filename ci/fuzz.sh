#!/usr/bin/env bash
# Fuzzes every target for so many seconds (60 unless told): `ci/fuzz.sh 10`. With a nightly
# compiler and cargo-fuzz by libFuzzer, from the committed inputs; what it finds on the way
# stays in fuzz/target. Without them the stable driver does the same with random bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
seconds=${1:-60}
targets="operations transfers layouts defrag settings requests trace"

if cargo +nightly fuzz --version > /dev/null 2>&1; then
    cd fuzz
    cargo +nightly fuzz build
    for target in $targets; do
        kept="target/kept/$target"
        mkdir -p "$kept"
        # Threads that are just ending look like leaks to the sanitizer.
        cargo +nightly fuzz run "$target" "$kept" "corpus/$target" -- \
            -max_total_time="$seconds" -max_len=2048 -detect_leaks=0 -print_final_stats=1 \
            2>&1 | grep -E 'DONE|panicked|ERROR|SUMMARY|Test unit|number_of_executed' \
            | sed "s/^/$target: /"
    done
else
    echo "no nightly compiler with cargo-fuzz here: the stable driver instead"
    # It shares its time between five targets; those of the keyspace have their own number.
    TALLOW_FUZZ_SECONDS=$((seconds * 5)) cargo test -p tallow --test fuzz_corpus
    # Of the workspace: as everything else is tested, so nothing is built anew.
    cargo test --workspace --test requests --test trace
fi
