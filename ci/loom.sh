#!/usr/bin/env bash
# Runs the loom models of the shipped code, and their weakened twins, which must fail;
# prints how many executions of each were explored. What each one proves stands in
# docs/loom.md, which must have a row for each. Some seconds on two cores, once built.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# The models' own speed hardly gains from what takes long to build.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4
export RUSTFLAGS="--cfg loom"

out=$(mktemp)
trap 'rm -f "$out"' EXIT
run() { cargo test -p tallow --release --lib --target-dir target/loom "$@"; }

run --no-run
started=$SECONDS
# What panics is caught and told in the table, so it is shown only if something is wrong.
if ! run -- --nocapture --test-threads=2 "$@" > "$out" 2>&1; then
    cat "$out"
    exit 1
fi

rows=$(sed -n 's/^loom-model\t//p' "$out" | sort)
[ -n "$rows" ] || { echo "no model has run"; exit 1; }
line='%-48s %11s %11s  %s\n'
# shellcheck disable=SC2059
{
    printf "$line" "model" "preemptions" "executions" "result"
    sum=0 models=0 twins=0
    while IFS=$'\t' read -r name preemptions executions result; do
        printf "$line" "$name" "$preemptions" "$executions" "$result"
        sum=$((sum + executions))
        case $result in holds) models=$((models + 1)) ;; *) twins=$((twins + 1)) ;; esac
    done <<< "$rows"
    echo "$models models hold and $twins twins fail as expected: $sum executions in $((SECONDS - started)) s"
}

missing=0
while IFS=$'\t' read -r name _; do
    grep -qF "| $name |" docs/loom.md || { echo "docs/loom.md has no row for: $name"; missing=1; }
done <<< "$rows"
# A part of them may be chosen by name.
if [ $# = 0 ]; then
    while read -r name; do
        grep -qF "$name"$'\t' <<< "$rows" || { echo "docs/loom.md has a row for what did not run: $name"; missing=1; }
    done < <(sed -n '/^## Models/,/^## [^M]/s/^| \([a-z][^|]*\) |.*/\1/p' docs/loom.md | grep -v '^model$\|^twin$')
fi
exit $missing
