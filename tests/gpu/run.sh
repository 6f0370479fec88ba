#!/usr/bin/env bash
# Everything there is to see on a GPU, in one command, without a network, in 8 minutes at most: the tests of this
# folder, the suite srm-linf on embedded images, the overhead of an attack and the figures of measure.py, of which
# the last are left out where time runs out. Writes gpu.json, gpu.md and logs.
#
#   bash tests/gpu/run.sh OUT [WHEELS]
#
# It takes what the machine's own Python has (PyTorch, timm, pandas, ...) and this package from source. WHEELS is a
# folder of wheels for what is missing there, installed into a temporary folder only.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
wheels=${2:-}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "$wheels" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit 1
fi
for floor in harness models attacks suites results reports tests; do site="$PWD/$floor:$site"; done
export PYTHONPATH="$site" PYTHONUNBUFFERED=1
failed=0

step() { # name, seconds at most, command
  local name=$1 most=$2
  shift 2
  echo "== $name"
  timeout "$most" "$@" > "$out/$name.log" 2>&1 || { echo "$name ended with $?"; failed=1; }
  tail -n 12 "$out/$name.log"
}

step tests 100 python3 -m pytest tests/gpu -p no:cacheprovider -rs --durations=5
work=$(mktemp -d)
# On smoke: a fresh machine takes longer to build demo than to attack it.
step srm-linf 90 python3 -m iqa_harness attack --suite srm-linf --data smoke --model demo_lite0 \
  --model demo_resnet10t --limit 16 --device cuda --store "$work/store" --quiet
rm -rf "$work"
step overhead 50 python3 tests/benchmarks/bench_overhead.py --device cuda --graphed
step measure 230 python3 tests/gpu/measure.py --out "$out"
exit $failed
