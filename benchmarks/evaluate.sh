#!/usr/bin/env bash
# How right the shipped model is, by the judge of pixels, from mp4 files read back.
#
#   benchmarks/evaluate.sh [OUT] [MODEL]     clips and reports under OUT [runs/evaluate], MODEL [world]
#
# Keyframes alone but for `cascade`, which is what the figures are of: neither interpolated nor
# enlarged. All of the test split, which nothing was trained or tuned on:
#   test       512 captions as they are drawn
#   full       512 captions of the full world: one to three objects, their relation, one motion each
#   unseen     the six combinations of shape, color and motion that no training clip has, 32 of each;
#              rendered, too, to see what the judge says of the truth
#   phrasings  docs/samples.txt: sixteen prompts in people's words, eight seeds each
#   cascade    the first 256 of test once more, as keyframes and as `generate` makes clips unless it
#              is told otherwise: interpolated, enlarged, decoded. The judge looks at five frames.
#              And their Fréchet video distance to rendered clips, by both decoders
#   snap-video the same 256, as keyframes of the model `snap-video`; with MODEL world alone
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/evaluate}
model=${2:-world}
vidgen=${VIDGEN:-.venv/bin/vidgen}
rm -rf "$out"
mkdir -p "$out"/{test,full,unseen,rendered,phrasings,cascade,image,real,snap-video}

"$vidgen" world --split test --num 512 --rows > "$out/test.jsonl"
"$vidgen" world --split test --num 512 --level full --set events=1 --rows > "$out/full.jsonl"

head -n 256 "$out/test.jsonl" > "$out/cascade.jsonl"

seed=100000
while read -r shape color motion; do
    scenes=(--split test --seed "$seed" --num 32)
    scenes+=(--set "shape=$shape" --set "color=$color" --set "motion=$motion")
    "$vidgen" world "${scenes[@]}" --rows
    "$vidgen" world "${scenes[@]}" --frames 5 --fps 2 -q -o "$out/rendered/{id}.mp4"
    seed=$((seed + 32))
done > "$out/unseen.jsonl" <<'COMBINATIONS'
cylinder purple spins
ball cyan comes closer
cube yellow bounces
ball green moves right
cylinder orange moves away
cube white moves left
COMBINATIONS

make() { "$vidgen" generate --batch-size 32 --passes 0 --scale 1 -q "$@"; }
judge() { "$vidgen" evaluate-world -q "$@"; }
# Two processes side by side do more than one with all threads.
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((cores + 1) / 2))}
{
    make --model "$model" -i "$out/full.jsonl" -o "$out/full/{id}.mp4"
    make --model "$model" -i "$out/unseen.jsonl" -o "$out/unseen/{id}.mp4"
    make --model "$model" -i docs/samples.txt --num-samples 8 -o "$out/phrasings/{id}.mp4"
    if [ "$model" = world ]; then
        make --model snap-video -i "$out/cascade.jsonl" -o "$out/snap-video/{id}.mp4"
    fi
} &
make --model "$model" -i "$out/test.jsonl" -o "$out/test/{id}.mp4"
"$vidgen" encode-text -i "$out/cascade.jsonl" --model "$model" -q -o "$out/text.vgs"
"$vidgen" sample "$out/text.vgs" --model "$model" --batch-size 32 -q -o "$out/dense.vgs"
"$vidgen" upsample "$out/dense.vgs" --model "$model" --batch-size 32 -q -o "$out/large.vgs"
"$vidgen" decode "$out/large.vgs" --model "$model" -q -o "$out/cascade/{id}.mp4"
"$vidgen" decode "$out/large.vgs" --model "$model" --decoder image -q -o "$out/image/{id}.mp4"
"$vidgen" world --split test --num 256 --size 128x80 -q -o "$out/real/{id}.mp4"
wait $!
unset OMP_NUM_THREADS

keyframes=()
for clip in "$out"/cascade/*.mp4; do keyframes+=("$out/test/${clip##*/}"); done

echo "512 test captions"
judge "$out"/test/*.mp4 --prompts "$out/test.jsonl" --ceiling 1024 \
    --failures "$out/failures.png" --report "$out/evaluate-world.json"
echo
echo "512 test captions of the full world"
judge "$out"/full/*.mp4 --prompts "$out/full.jsonl" --level full --ceiling 1024 \
    --failures "$out/failures-full.png" --report "$out/evaluate-full.json"
echo
echo "combinations never trained on, rendered"
judge "$out"/rendered/*.mp4 --prompts "$out/unseen.jsonl" --ceiling 0 \
    --report "$out/evaluate-unseen-rendered.json"
echo
echo "combinations never trained on"
judge "$out"/unseen/*.mp4 --prompts "$out/unseen.jsonl" --ceiling 0 --report "$out/evaluate-unseen.json"
echo
echo "sixteen phrasings, eight seeds"
judge "$out"/phrasings/*.mp4 --ceiling 0 --report "$out/evaluate-phrasings.json"
echo
echo "256 test captions, keyframes alone"
judge "${keyframes[@]}" --prompts "$out/cascade.jsonl" --ceiling 0 \
    --report "$out/evaluate-keyframes.json"
echo
echo "256 test captions, the whole cascade"
judge "$out"/cascade/*.mp4 --prompts "$out/cascade.jsonl" --ceiling 0 \
    --report "$out/evaluate-cascade.json"
if [ "$model" = world ]; then
    echo
    echo "256 test captions, keyframes of snap-video"
    judge "$out"/snap-video/*.mp4 --prompts "$out/cascade.jsonl" --ceiling 0 \
        --report "$out/evaluate-snap-video.json"
fi
echo
echo "256 clips of the whole cascade, and the same by the image decoder, against rendered ones"
"$vidgen" evaluate-fvd "$out/real" "$out/cascade" -q --report "$out/evaluate-fvd.json"
"$vidgen" evaluate-fvd "$out/real" "$out/image" -q --report "$out/evaluate-fvd-image.json"
