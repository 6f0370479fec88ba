#!/usr/bin/env bash
# Makes this folder again: images, models, the baseline, and how far honest runs lie apart. In order of what
# changes more often: `make.sh` makes the baseline of the images and models that are here; with `images` or
# `models` behind it those are made first.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=results/baselines/demo
work=build/baseline
export PATH="$PWD/.venv/bin:$PATH"
rm -rf "$work"

if [[ " $* " == *" images "* ]]; then
  rm -rf "$here/images"
  iqa-harness data export smoke --limit 8 --out "$here/images"
fi

if [[ " $* " == *" models "* ]]; then
  iqa-harness train demo_srm --set options.protocol=native --set crop=128 --out "$work/demo_srm"
  iqa-harness train demo_plain --set crop=128 --out "$work/demo_plain"
  for name in demo_srm demo_plain; do
    iqa-harness models push "$work/$name" "$here/models/$name" --without-trunk
  done
fi

attack() {
  local store=$work/$1
  shift
  iqa-harness attack --suite "$here/suite.toml" --run gate --store "$store" --quiet \
    --model "demo_srm=./$here/models/demo_srm" --model "demo_plain=./$here/models/demo_plain" "$@"
}

# The same models, attacked by other means that should change nothing: what a processor without wide vectors
# computes, other sums (threads, images in one pass), gradients of a folded copy.
attack plain --tune off --threads 1
ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 attack avx2 --tune off --threads 1
ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 attack narrow --tune off --threads 1
attack threads --tune off --threads 2 --chunk 3
attack tuned --tune full --threads 1

iqa-harness baseline save demo --folder results/baselines --run gate --store "$work/plain" --force
python - "$work" <<'PYTHON'
import sys

import iqa_harness as iqa

runs = [iqa.load_run("gate", store=f"{sys.argv[1]}/{n}") for n in ("plain", "avx2", "narrow", "threads", "tuned")]
iqa.calibrate("results/baselines/demo", runs)
PYTHON
iqa-harness baseline show results/baselines/demo
