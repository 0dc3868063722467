#!/usr/bin/env bash
# Trains on pictures of solar cells, runs a line on others of them and follows its decisions over
# MQTT. Set-up included. Everything it makes lies in .runtime/demo/.
set -euo pipefail
# shellcheck source=deploy/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
    cat <<'TEXT'
Usage: deploy/demo.sh [OPTIONS]

  --seconds N   how long the line runs (default 60)
  --port P      port of the embedded broker on loopback (default: the first free one from 18830)
  --help        show this

The pictures (PyPI package elpv-dataset) are CC BY-NC-SA 4.0: not for commercial use.
TEXT
}

# whole_number OPTION VALUE LEAST MOST
whole_number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then
        echo "error: $1 takes a whole number from $3 to $4, not '$2'" >&2
        exit 2
    fi
}

seconds=60 port=
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2:-}; whole_number "$1" "$seconds" 1 1000000; shift ;;
        --port) port=${2:-}; whole_number "$1" "$port" 1 65535; shift ;;
        --help | -h) usage; exit 0 ;;
        *) echo "error: unknown option $1 (see deploy/demo.sh --help)" >&2; exit 2 ;;
    esac
    shift
done

# What takes long runs in the background and is waited for, because bash carries a trap out only
# between commands: so Ctrl-C and a kill work at any time, and whatever was started is ended. Not so
# the set-up, which may have to ask for sudo's password on the terminal.
children=()
stop_children() {
    local child tick
    trap '' INT TERM
    for child in "${children[@]}"; do
        kill -TERM "$child" 2>/dev/null || true
    done
    # A line that stops in order takes a moment; one that hangs is not waited for.
    for ((tick = 0; tick < 200; tick++)); do
        local alive=no
        for child in "${children[@]}"; do
            if kill -0 "$child" 2>/dev/null; then
                alive=yes
            fi
        done
        [ "$alive" = yes ] || break
        sleep 0.1
    done
    for child in "${children[@]}"; do
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    children=()
}
trap stop_children EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

attended() {
    "$@" &
    children+=("$!")
    wait "$!"
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local candidate
    if [ -n "$port" ]; then
        if listens "$port"; then
            fail "port $port is taken; give another one with --port"
        fi
        return
    fi
    for ((candidate = 18830; candidate < 18930; candidate++)); do
        if ! listens "$candidate"; then
            port=$candidate
            return
        fi
    done
    fail "no free port from 18830 to 18929; give one with --port"
}

cd "$LINEGATE_ROOT"
demo=$LINEGATE_RUNTIME/demo
linegate=$LINEGATE_RUNTIME/bin/linegate

deploy/setup.sh
built=$EPOCHSECONDS

step "Pictures"
python=$(python_with_pip) || fail "no python3 with pip; on Debian: apt-get install python3-pip"
attended "$python" deploy/fetch_wheel.py --into "$LINEGATE_RUNTIME" \
    --wheel elpv-dataset==1.0.0.post1 \
    --sha256 85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c \
    --tree elpv_dataset/data elpv cb0ac9151abad2e46fecfb4a01a6416f7417e32dd63333e41a4da1509c1a3c19
attended "$python" deploy/prepare_elpv.py "$LINEGATE_RUNTIME/elpv" "$demo/cells"

step "Training"
# The pictures have no masks: the model trained so far finds where the ten known defects are.
attended "$linegate" train --data "$demo/cells/data" --out "$demo/bundle" \
    --backbone "$LINEGATE_RUNTIME/efficientnet_lite0.onnx" --defects 10 --seed 1 --preset fast

step "The line"
free_port
# What an earlier demo left to deliver or to review does not belong to this one.
rm -rf "$demo/state"
mkdir -p "$demo/state"
cat >"$demo/line.toml" <<TOML
# Written by deploy/demo.sh. Relative paths count from this file's folder.

[station]
site = "demo"
line = "cells"
station = "station1"

[model]
bundle = "bundle"

[[camera]]
name = "camera1"
pipeline = "folder"
parameters = { location = "cells/line", rate = 4, loop = true }
deadline_ms = 2000

[mqtt]
broker = { kind = "embedded", listen = "127.0.0.1:$port" }
stats_interval_s = 1

[outbox]
file = "state/outbox.sqlite"

[archive]
directory = "state/archive"
quota_mib = 256
TOML

"$linegate" run --config "$demo/line.toml" >"$demo/run.log" 2>&1 &
line=$!
children+=("$line")
patience=$((SECONDS + 60))
until listens "$port"; do
    if [ "$SECONDS" -ge "$patience" ]; then
        fail "the line's broker does not listen on port $port after 60 s; the log is $demo/run.log"
    fi
    if ! kill -0 "$line" 2>/dev/null; then
        tail -n 20 "$demo/run.log" >&2
        fail "the line stopped before its broker listened; its log is $demo/run.log"
    fi
    sleep 0.05
done

# A second, foreign subscriber ends at the first decision and leaves the time it came (%U).
first=$demo/state/first
if command -v mosquitto_sub >/dev/null; then
    mosquitto_sub -V mqttv5 -h 127.0.0.1 -p "$port" -t 'linegate/v1/demo/cells/station1/+/decision' \
        -C 1 -F %U >"$first" 2>/dev/null &
    children+=("$!")
fi

say "decisions on mqtt://127.0.0.1:$port, topic linegate/v1/demo/cells/station1/camera1/decision"
say "log in $demo/run.log; Ctrl-C stops everything"
attended "$linegate" watch --host 127.0.0.1 --port "$port" \
    --labels "$demo/cells/line/labels.csv" --seconds "$seconds"

if ! kill -0 "$line" 2>/dev/null; then
    tail -n 20 "$demo/run.log" >&2
    fail "the line stopped by itself; its log is $demo/run.log"
fi
stop_children

step "Done"
if [ -s "$first" ]; then
    at=$(<"$first")
    say "first verdict $(duration $((${at%%.*} - built))) after the program was built"
fi
say "rejects and suspects, with maps and records: $demo/state/archive"
say "measure the model on 200 other cells:"
say "  $linegate evaluate --bundle $demo/bundle --data $demo/cells/data --report $demo/report"
