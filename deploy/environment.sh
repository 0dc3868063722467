# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, and how they speak. Sets, never installs.

# The scripts' own folder gives the checkout, wherever they are called from.
LINEGATE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Fetched and made things: ignored by git, one set for each checkout.
LINEGATE_RUNTIME=$LINEGATE_ROOT/.runtime

if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME
fi

# Build output lies outside of the checkout, so that a second clone need not compile the
# dependencies again. A target directory that is set already is respected.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/linegate/target}
# Programs that checks need and that are compiled here.
LINEGATE_TOOLS=$(dirname "$CARGO_TARGET_DIR")/linegate-tools
# Other places for rustup's cargo than the search path, such as a shell without its profile.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
# The library that setup.sh fetches; one that is set already (a GPU build) is respected.
LINEGATE_ONNXRUNTIME=${LINEGATE_ONNXRUNTIME:-$LINEGATE_RUNTIME/libonnxruntime.so}
# Where tests find their snapshots: else in the checkout that compiled them, which another one that
# shares the build output may have been, and which may be gone.
INSTA_WORKSPACE_ROOT=$LINEGATE_ROOT
export CARGO_TARGET_DIR PATH LINEGATE_ROOT LINEGATE_RUNTIME LINEGATE_TOOLS LINEGATE_ONNXRUNTIME INSTA_WORKSPACE_ROOT

# A step's headline, on standard output like everything the steps say.
step() {
    printf '\n==> %s\n' "$*"
}

say() {
    printf '    %s\n' "$*"
}

# fail MESSAGE: stops the script with what is wrong and what to do.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# duration SECONDS: prints it as 4 s or 3 min 12 s.
duration() {
    if [ "$1" -lt 60 ]; then
        printf '%d s' "$1"
    else
        printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
    fi
}

# Prints the python3 that has pip, and fails silently where there is none. The system's own is
# asked second, because python3-pip serves only that one.
python_with_pip() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -m pip --version >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}
