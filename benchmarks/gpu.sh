#!/usr/bin/env bash
# What only a CUDA machine can do, within BUDGET_S seconds [540]; run it again to go on.
#
#   benchmarks/gpu.sh [OUT]      results under OUT (default: runs/gpu)
#
# First the tests that need a device, then Wan at released sizes against diffusers, then trainings,
# each resuming from its last checkpoint: the shipped model's keyframes at 80 × 128, and the judge and
# the model of the full world (preset base); what the judge says of that, FIT's speed against a U-Net's,
# and the benchmark table.
# What is done already is skipped. Exit 75: there is more to do.
#
# GPU_SH_TINY=1 tries this script where there is no GPU: the part of Wan alone, shrunken.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
budget=${BUDGET_S:-540}
python=${PYTHON:-python3}
began=$SECONDS
mkdir -p "$out"
left() { echo $((budget - (SECONDS - began))); }

released() { # OPTIONS…
    [ -e "$out/released.done" ] && return 0
    export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(realpath "$out")/compiled}"
    timeout "$(($(left) - 5))" "$python" -m benchmarks.released_cuda --out "$out/released.json" \
        --seconds "$(($(left) - 30))" "$@"
    local code=$?
    [ "$code" = 124 ] && code=75 # its time was over
    [ "$code" = 0 ] && touch "$out/released.done"
    return "$code"
}
if [ -n "${GPU_SH_TINY:-}" ]; then
    released --tiny --device cpu
    exit $?
fi

"$python" - <<'PY' | tee "$out/machine.txt"
import torch
print("torch", torch.__version__)
assert torch.cuda.is_available(), "no CUDA device: nothing to do here"
print("device", torch.cuda.get_device_name())
PY
[ "${PIPESTATUS[0]}" = 0 ] || exit 1

[ -e "$out/tests.done" ] || {
    timeout 120 "$python" -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.txt"
    [ "${PIPESTATUS[0]}" = 0 ] && touch "$out/tests.done"
}

released
[ $? = 75 ] && exit 75 # a part that fails is told of in released.json, and the rest goes on

# Minutes of training that each part gets in all; a stopped one exits 75 and resumes.
run() { # NAME RECIPE MINUTES SETTINGS…
    local name=$1 recipe=$2 minutes=$3
    shift 3
    local dir="$out/$name"
    [ -e "$dir/model/.done" ] && return 0
    [ "$(left)" -gt 45 ] || return 75
    timeout --signal=TERM "$(($(left) - 20))" "$python" -m vidgen train "$recipe" "$@" \
        --minutes "$minutes" --device cuda --out "$dir" 2>&1 | tail -n 3
    local code=${PIPESTATUS[0]}
    [ "$code" = 0 ] && touch "$dir/model/.done"
    return "$code"
}
# A network as large as the shipped one, begun from its blocks: for `models promote`.
run sharp-keyframes world-keyframes 8 --preset sharp --set data.start=vidgen/models/world \
    --set data.vae=vidgen/models/world --set data.text=vidgen/models/world \
    --set "data.cache=$out/cache" --set data.num=32768 --set data.num_full=16384 \
    --set data.canonical=0.25 --set model.depth=16 --set model.self_conditioned=true \
    --set loss.object_weight=3 --set batch_size=256 --set schedule.decay_fraction=0.95 \
    --set export_dtype=int8 || exit $?
run judge-full world-judge 4 --preset full || exit $?
run base-autoencoder world-autoencoder 5 --preset base || exit $?
run base-text world-text 2 --preset base || exit $?
run base-keyframes world-keyframes 12 --preset base --set "data.vae=$out/base-autoencoder/model" \
    --set "data.text=$out/base-text/model" --set "data.cache=$out/cache" || exit $?

# What the judge of the full world says of it, on test prompts.
[ -e "$out/evaluate-full.json" ] || {
    "$python" -m vidgen world --level full --split test --num 512 --rows > "$out/prompts.jsonl"
    mkdir -p "$out/clips"
    "$python" -m vidgen generate -i "$out/prompts.jsonl" --model "$out/base-keyframes/model" -q \
        --batch-size 128 --force -o "$out/clips/{id}.mp4"
    "$python" -m vidgen evaluate-world "$out"/clips/*.mp4 --prompts "$out/prompts.jsonl" -q \
        --level full --judge "$out/judge-full/model" --report "$out/evaluate-full.json"
}
# FIT against the U-Net at the published sizes: benchmarks/results/snap-video-speed-cuda.json.
[ "$(left)" -gt 90 ] && timeout "$(($(left) - 20))" "$python" -m benchmarks.snap_video speed \
    --device cuda
[ "$(left)" -gt 60 ] && "$python" -m benchmarks --json > "$out/bench.json"
exit 0
