#!/usr/bin/env bash
# The fault suite in its long form: brokers and lines killed again and again, cameras that come and go,
# overload, full disks, torn files. The short form is among the tests that deploy/test.sh runs.
set -euo pipefail
# shellcheck source=deploy/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    echo "Usage: deploy/faults.sh [TEST]   (a part of a test's name; all of the suite without one)"
    exit 0
fi

cd "$LINEGATE_ROOT"
# The v4l2 tests run in a guest; the set-up finds it there after the first time.
if [ "$(uname -m)" = x86_64 ]; then
    case ${1:-v4l2} in
        *v4l2*) deploy/setup.sh --no-build --no-backbone --v4l2 ;;
    esac
fi
timed=$SECONDS
# One at a time: a test that measures how late a decision comes must have the machine to itself.
LINEGATE_FAULTS=long cargo test --locked --test integration "faults::${1:-}" -- --nocapture --test-threads 1
# Commands are met inside the program; a case takes microseconds.
[ $# -gt 0 ] || PROPTEST_CASES=40000000 cargo test --locked --lib no_command_can_break
step "Fault suite passed in $(duration $((SECONDS - timed)))"
