#!/usr/bin/env bash
# Makes the baseline again, and measures how far runs lie apart that should be equal: of the images and models that
# are here, or, with `images` or `models` behind it, of such as are made first.
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
    rm "$here/models/$name/README.md"
  done
fi

attack() {
  local store=$work/$1
  shift
  iqa-harness attack --suite "$here/suite.toml" --run gate --store "$store" --quiet \
    --model "demo_srm=./$here/models/demo_srm" --model "demo_plain=./$here/models/demo_plain" "$@"
}

# The same models, attacked by other means that should change nothing: vectors of 256 bits in what torch computes
# itself, then in convolutions as well, with other images in one pass.
attack plain --tune off --threads 1
ATEN_CPU_CAPABILITY=avx2 attack avx2 --tune off --threads 1
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 attack chunks --tune off --threads 1 --workers 2 --chunk 3

iqa-harness baseline save demo --folder results/baselines --run gate --store "$work/plain" --force
python - "$work" <<'PYTHON'
import sys

import iqa_harness as iqa

runs = [iqa.load_run("gate", store=f"{sys.argv[1]}/{n}") for n in ("plain", "avx2", "chunks")]
iqa.calibrate("results/baselines/demo", runs)
PYTHON
iqa-harness baseline show results/baselines/demo
