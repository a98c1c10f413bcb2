#!/usr/bin/env bash
# What only a CUDA machine can do, within BUDGET_S seconds [540]; run it again to go on.
#
#   benchmarks/gpu.sh [OUT]      results under OUT (default: runs/gpu)
#
# First the tests that need a device, then the shipped model's recipes, each resuming from its last
# checkpoint, then the benchmark table. What is done already is skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
budget=${BUDGET_S:-540}
python=${PYTHON:-python3}
began=$SECONDS
mkdir -p "$out"
left() { echo $((budget - (SECONDS - began))); }

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

# Minutes of training that each stage of the model gets in all; a stopped stage exits 75 and resumes.
train() { # RECIPE MINUTES
    local dir="$out/$1"
    [ -e "$dir/model/.done" ] && return 0
    [ "$(left)" -gt 45 ] || return 75
    timeout --signal=TERM "$(($(left) - 20))" "$python" -m vidgen train "$1" --minutes "$2" \
        --device cuda --out "$dir" "${@:3}" 2>&1 | tail -n 3
    local code=${PIPESTATUS[0]}
    [ "$code" = 0 ] && touch "$dir/model/.done"
    return "$code"
}
train world-autoencoder 2.5 || exit $?
train world-text 1 || exit $?
train world-keyframes 5 --set "data.vae=$out/world-autoencoder/model" \
    --set "data.text=$out/world-text/model" --set data.num=262144 --set "data.cache=$out/cache" || exit $?

[ "$(left)" -gt 60 ] && "$python" -m benchmarks --json > "$out/bench.json"
exit 0
