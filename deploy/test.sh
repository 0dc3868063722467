#!/usr/bin/env bash
# Set-up and every check: format, lints, documentation, tests. What CI runs.
set -euo pipefail
# shellcheck source=deploy/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -gt 0 ]; then
    [ "$1" = --help ] || [ "$1" = -h ] || { echo "error: unknown option $1" >&2; exit 2; }
    echo "Usage: deploy/test.sh   (no options; sets the machine up, then checks everything)"
    exit 0
fi

cd "$LINEGATE_ROOT"
durations=()

# timed NAME COMMAND...: runs it with its output visible and remembers how long it took.
timed() {
    local name=$1 begin=$SECONDS
    shift
    step "$name"
    "$@"
    durations+=("$(printf '%-14s %s' "$name" "$(duration $((SECONDS - begin)))")")
}

# Packages and fetched files first: the lints must compile against them.
fetched=(--no-build --no-backbone --deny)
# The v4l2 tests need a guest, which there is for this kind of machine alone.
[ "$(uname -m)" != x86_64 ] || fetched+=(--v4l2)
timed "set-up" deploy/setup.sh "${fetched[@]}"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 ||
        fail "cargo $component is missing; install it with: rustup component add rustfmt clippy"
done

timed "format" cargo fmt --check
timed "lints" cargo clippy --all-targets --locked -- -D warnings
timed "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
# Not the advisories: their list is fetched from a host that a machine behind a wall does not reach.
timed "dependencies" "$LINEGATE_TOOLS/bin/cargo-deny" --locked --config deploy/deny.toml check bans licenses sources
# What the tests are built from also makes the backbone. A plain `cargo build` here would compile the
# dependencies a second time, because the tests' own libraries switch other features of them on.
timed "build" cargo test --locked --no-run
timed "backbone" deploy/setup.sh --no-packages --no-build --profile dev
timed "tests" cargo test --locked -- --skip faults::v4l2::
# By themselves: an emulated machine takes both cores from tests that measure how late things come.
timed "v4l2 camera" cargo test --locked --test integration faults::v4l2:: -- --test-threads 1

step "All checks passed in $(duration "$SECONDS")"
for line in "${durations[@]}"; do
    say "$line"
done
