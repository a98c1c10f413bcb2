#!/usr/bin/env bash
# How right the shipped model is, by the judge of pixels, from mp4 files read back.
#
#   benchmarks/evaluate.sh [OUT] [MODEL]     clips and reports under OUT [runs/evaluate], MODEL [world]
#
# Three sets, all of the test split, which nothing was trained or tuned on:
#   test       512 captions as they are drawn
#   unseen     the six combinations of shape, color and motion that no training clip has, 32 of each
#   phrasings  docs/samples.txt: sixteen prompts in people's words, eight seeds each
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/evaluate}
model=${2:-world}
vidgen=${VIDGEN:-.venv/bin/vidgen}
rm -rf "$out"
mkdir -p "$out"/{test,unseen,phrasings}

"$vidgen" world --split test --num 512 --rows > "$out/test.jsonl"

seed=100000
while read -r shape color motion; do
    "$vidgen" world --split test --seed "$seed" --num 32 --rows \
        --set "shape=$shape" --set "color=$color" --set "motion=$motion"
    seed=$((seed + 32))
done > "$out/unseen.jsonl" <<'COMBINATIONS'
cylinder purple spins
ball cyan comes closer
cube yellow bounces
ball green moves right
cylinder orange moves away
cube white moves left
COMBINATIONS

make() { "$vidgen" generate --model "$model" --batch-size 32 -q "$@"; }
judge() { "$vidgen" evaluate-world -q "$@"; }
make -i "$out/test.jsonl" -o "$out/test/{id}.mp4"
make -i "$out/unseen.jsonl" -o "$out/unseen/{id}.mp4"
make -i docs/samples.txt --num-samples 8 -o "$out/phrasings/{id}.mp4"

echo "512 test captions"
judge "$out"/test/*.mp4 --prompts "$out/test.jsonl" --ceiling 1024 \
    --failures "$out/failures.png" --report "$out/evaluate-world.json"
echo
echo "combinations never trained on"
judge "$out"/unseen/*.mp4 --prompts "$out/unseen.jsonl" --ceiling 0 --report "$out/evaluate-unseen.json"
echo
echo "sixteen phrasings, eight seeds"
judge "$out"/phrasings/*.mp4 --ceiling 0 --report "$out/evaluate-phrasings.json"
