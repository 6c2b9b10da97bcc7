#!/usr/bin/env bash
# The suites under tools that watch them: ThreadSanitizer, AddressSanitizer, Miri, memcheck,
# shuffled layouts. Half an hour on two idle cores; a tool that is missing is skipped with
# a word. One part: `ci/sanitize.sh tsan`. Results and controls: docs/checks.md.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
target=x86_64-unknown-linux-gnu
failed=0
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(tsan asan layout miri memcheck)

nightly() { rustup component list --toolchain nightly 2> /dev/null | grep -q "^$1.*(installed)"; }

# Runs one check, and says how it ended.
run() {
    local name=$1
    shift
    if "$@"; then echo "ok: $name"; else
        echo "FAILED: $name"
        failed=1
    fi
}

tsan() {
    nightly rust-src || { echo "skipped: ThreadSanitizer needs rust-src of a nightly toolchain"; return; }
    # No barrier on all processors: it is unknown to the tool, which would take what it
    # orders for races (src/trust.rs, Recall), and sleeping threads keep their caches then. No RSS and no address-space limits: the
    # tool's own memory counts there. No forks of several threads: it refuses them.
    export RUSTFLAGS="-Zsanitizer=thread --cfg tallow_no_barrier"
    export TSAN_OPTIONS="second_deadlock_stack=1 history_size=4"
    local test=(nice -n 10 cargo +nightly test -j1 -p tallow -Zbuild-std --target $target --target-dir target/tsan)
    run "tsan: scenes, model, accounts" "${test[@]}" --test strict --test model --test accounts
    run "tsan: global" "${test[@]}" --test global -- --skip fork --skip sleeping_threads
    run "tsan: defragmentation" "${test[@]}" --test relocate --test defrag -- --skip fork
    run "tsan: units" "${test[@]}" --lib -- lock:: pages:: limit:: slab::
    unset RUSTFLAGS TSAN_OPTIONS
}

asan() {
    nightly rustc || { echo "skipped: AddressSanitizer needs a nightly toolchain"; return; }
    export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=0"
    run "asan" nice -n 10 cargo +nightly test -j1 -p tallow --target $target --target-dir target/asan \
        --test strict --test global --test accounts --test relocate --test model
    unset RUSTFLAGS ASAN_OPTIONS
}

layout() {
    nightly rustc || { echo "skipped: shuffled layouts need a nightly toolchain"; return; }
    RUSTFLAGS="-Zrandomize-layout -Cdebug-assertions" run "layout" nice -n 10 cargo +nightly test -j1 \
        -p tallow --target-dir target/layout --lib --test strict --test global --test accounts
}

miri() {
    nightly miri || { echo "skipped: Miri is no component of the nightly toolchain here"; return; }
    local miri="-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks"
    local test=(nice -n 10 cargo +nightly miri test -j1 -p tallow --target-dir target/miri)
    # Aliasing and races; then races alone, which is faster, in several orders.
    MIRIFLAGS="$miri" run "miri" "${test[@]}" --test strict -- --test-threads=1
    for scene in blocks_go purges_come threads_come; do
        MIRIFLAGS="$miri -Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..6" \
            run "miri: $scene, six orders" "${test[@]}" --test strict -- --test-threads=1 $scene
    done
}

memcheck() {
    command -v valgrind > /dev/null || { echo "skipped: no valgrind"; return; }
    local program
    program=$(cargo test -p tallow --test strict --no-run --message-format=json 2> /dev/null \
        | sed -n 's/.*"executable":"\([^"]*strict-[^"]*\)".*/\1/p' | tail -n 1)
    run "memcheck" nice -n 10 valgrind --quiet --error-exitcode=9 --undef-value-errors=yes \
        --fair-sched=yes "$program" --test-threads=1 one_thread blocks_go threads_come
}

for part in "${parts[@]}"; do "$part"; done
exit $failed
