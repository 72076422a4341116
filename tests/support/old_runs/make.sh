#!/usr/bin/env bash
# The runs beside this file, as they were made at commit 1b3923c: bash make.sh OUT, from the root of a checkout.
set -euo pipefail
out=$1
small=("data={type: procedural, size: 24, views: 8, test_views: 2}" train.minutes=null train.steps=6 train.rays=64
       train.threads=1 train.validations=0 device=cpu)
grid='{levels: 3, base: 4, top: 16, log2_rows: 8}'
network='{layers: 2, width: 16, skip: []}'
field=model.foreground.field
behind=model.background.field
coarse=model.foreground.sampler.proposal.field

python train.py configs/neus_hash_open.yaml "${small[@]}" "$field.encoding=$grid" "$behind.encoding=$grid" \
  $field.geometry.width=16 $field.color.width=16 $behind.density.width=16 $behind.color.width=16 \
  model.foreground.sampler.resolution=16 output="$out/neus_hash_open"
python train.py configs/reduced/nerfpp.yaml "${small[@]}" "$field.density=$network" "$behind.density=$network" \
  "$coarse.density=$network" $field.color.width=16 $behind.color.width=16 $coarse.color.width=16 \
  $field.features=8 $behind.features=8 $coarse.features=8 output="$out/nerfpp"
for config in volsdf_siren unisurf; do
  python train.py configs/reduced/$config.yaml "${small[@]}" "$field.geometry=$network" \
    $field.color.width=16 $field.features=8 output="$out/$config"
done
for run in "$out"/*/; do
  python evaluate.py "$run" --device cpu
  rm -rf "$run"/meshes "$run"/events* "$run"/metrics.jsonl  # what no test reads
done
