#!/usr/bin/env bash
# The suites under tools that watch them: ThreadSanitizer, AddressSanitizer, Miri, memcheck,
# Helgrind, shuffled layouts. All of it takes hours on a busy machine; a tool that is missing is
# skipped with a word. One part: `ci/sanitize.sh tsan`. Results and controls: docs/checks.md.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
target=x86_64-unknown-linux-gnu
failed=0
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(tsan asan layout miri memcheck helgrind)
tests=(nice -n 10 cargo +nightly test -j1 -p tallow --no-fail-fast)
# A tool's own memory counts where address space, mappings or data end, in RSS, and in a cgroup.
without_ends=(--skip out_of_address_space_is_null --skip address_space_ends --skip data_ends --skip mappings_end
    --skip a_hundred_thousand_threads --skip limited_below_its_cgroup)

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
    # orders for races (src/trust.rs, Recall), and sleeping threads keep their caches then.
    # Forks of several threads go on with one. A handler that changes errno is what a test is
    # about, and the tool complains of.
    export RUSTFLAGS="-Zsanitizer=thread --cfg tallow_no_barrier"
    export TSAN_OPTIONS="second_deadlock_stack=1 history_size=4 die_after_fork=0"
    run "tsan: all suites" "${tests[@]}" -Zbuild-std --target $target --target-dir target/tsan \
        --lib --tests -- --skip sleeping_threads "${without_ends[@]}" --skip an_idle_process_shrinks \
        --skip signals_that_touch_errno --skip the_last_line_gets_through \
        --skip the_end_of_a_stack_is_told_of
    unset RUSTFLAGS TSAN_OPTIONS
}

asan() {
    nightly rustc || { echo "skipped: AddressSanitizer needs a nightly toolchain"; return; }
    # A fault behind a sampled block is Tallow's to tell of, and ends by the signal.
    export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=0:handle_segv=0"
    for features in "" hardened; do
        run "asan: all suites $features" "${tests[@]}" --target $target --target-dir target/asan \
            --features "$features" --lib --tests -- "${without_ends[@]}"
    done
    unset RUSTFLAGS ASAN_OPTIONS
}

layout() {
    nightly rustc || { echo "skipped: shuffled layouts need a nightly toolchain"; return; }
    for seed in 1 2; do
        RUSTFLAGS="-Zrandomize-layout -Zlayout-seed=$seed -Cdebug-assertions" run "layout $seed" "${tests[@]}" \
            --target-dir target/layout --lib --test strict --test global --test accounts --test relocate --test model
    done
}

miri() {
    nightly miri || { echo "skipped: Miri is no component of the nightly toolchain here"; return; }
    local miri="-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks"
    local test=(nice -n 10 cargo +nightly miri test -j1 -p tallow --target-dir target/miri)
    # Aliasing and races; then races alone, which is faster, in several orders.
    for features in "" hardened; do
        MIRIFLAGS="$miri" run "miri $features" \
            "${test[@]}" --features "$features" --test strict -- --test-threads=1
    done
    for scene in blocks_go purges_come threads_come; do
        MIRIFLAGS="$miri -Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..6" \
            run "miri: $scene, six orders" "${test[@]}" --test strict -- --test-threads=1 $scene
    done
}

# The program of a test, built as the words after its name say.
program() {
    local test=$1
    shift
    nice -n 10 cargo test -j1 -p tallow --no-run --message-format=json "$@" 2> /dev/null \
        | sed -n 's/.*"executable":"\([^"]*\/'"$test"'-[^"]*\)".*/\1/p' | tail -n 1
}

memcheck() {
    command -v valgrind > /dev/null || { echo "skipped: no valgrind"; return; }
    local check=(nice -n 10 valgrind --quiet --error-exitcode=9 --fair-sched=yes)
    local build=(--target-dir target/memcheck)
    # Of what mremap gains it is told (src/os/linux/told.rs).
    export RUSTFLAGS="--cfg tallow_memcheck"
    for features in "" hardened; do
        for test in strict accounts; do
            run "memcheck: $test $features" "${check[@]}" \
                "$(program $test --features "$features" --test $test "${build[@]}")" --test-threads=1
        done
    done
    unset RUSTFLAGS
}

helgrind() {
    command -v valgrind > /dev/null || { echo "skipped: no valgrind"; return; }
    # The locks tell it who takes them (src/lock/told.rs).
    local build=(--target-dir target/helgrind)
    local check=(nice -n 10 valgrind --tool=helgrind --quiet --error-exitcode=9 --fair-sched=yes
        --history-level=none --suppressions=ci/helgrind.supp)
    export RUSTFLAGS="--cfg tallow_helgrind"
    for features in "" hardened; do
        for test in "strict" "accounts" "global fork sleeping purge_gives"; do
            # Words of the list: a suite, and which of its tests.
            # shellcheck disable=SC2086
            set -- $test
            local name=$1
            shift
            run "helgrind: $test $features" "${check[@]}" \
                "$(program "$name" --features "$features" --test "$name" "${build[@]}")" --test-threads=1 "$@"
        done
    done
    # Two locks in both orders: it must say so.
    "${check[@]}" "$(program tallow --lib "${build[@]}")" two_orders > /dev/null 2>&1
    run "helgrind notices a wrong order" test $? = 9
    unset RUSTFLAGS
}

for part in "${parts[@]}"; do "$part"; done
exit $failed
