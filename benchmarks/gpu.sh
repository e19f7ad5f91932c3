#!/usr/bin/env bash
# Everything that one GPU can be asked, in under 8 minutes: benchmarks/gpu.sh, from the project's root.
# Needs jax, flax, optax, chex, numpy; without torch and timm their rows say so. Leaves OUT/gpu.json,
# OUT/gpu.md (the table) and OUT/log. Each part has a limit and the whole has one, so it always ends.
# A dry run on a CPU: SIZE=64 SIDE=64 BATCH=2 STEPS=1 STRIDE=32 PRECISION=float32 NETS=resnest14 benchmarks/gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=${OUT:-gpu} python=${PYTHON:-python3} limit=${LIMIT:-470}
size=${SIZE:-512} batch=${BATCH:-16} steps=${STEPS:-15} stride=${STRIDE:-16}
precision=${PRECISION:-bfloat16} side=${SIDE:-500}
read -ra nets <<<"${NETS:-resnest50 resnest101 resnest269}"
rm -rf "$out/parts"
mkdir -p "$out/parts"
: >"$out/log"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

# part NAME SECONDS FILE ARGUMENTS: runs a benchmark, which writes its rows to parts/NAME.json.
part() {
  local name=$1 seconds=$2 left=$((limit - SECONDS)) code=0
  shift 2
  if ((left < 1)); then
    echo "left out: the $limit s are over" >"$out/parts/$name.said"
    return
  fi
  ((seconds = seconds < left ? seconds : left))
  echo "== $name, at $SECONDS s, for at most $seconds s" | tee -a "$out/log"
  timeout --kill-after=5 "$seconds" "$python" "$@" --json="$out/parts/$name.json" \
    >"$out/parts/said" 2>&1 || code=$?
  cat "$out/parts/said" >>"$out/log"
  if ((code == 124 || code == 137)); then
    echo "stopped after $seconds s" >"$out/parts/$name.said"
  elif ((code)); then
    # A missing package is named in the first line, an error in the last.
    grep -m 1 'failed to import' "$out/parts/said" >"$out/parts/$name.said" ||
      grep -v '^[[:space:]]*$' "$out/parts/said" | tail -n 1 >"$out/parts/$name.said"
  fi
  rm -f "$out/parts/said"
}

common=(--method pnoc --size "$size" --batch "$batch" --output_stride "$stride" --steps "$steps"
  --precision "$precision")
first=${nets[0]}
# What matters most comes first.
part agreement 120 benchmarks/agreement.py --part step
for net in "${nets[@]}"; do
  flags=(--quick)
  # So many blocks take minutes to compile one by one.
  [[ $net == resnest200 || $net == resnest269 ]] && flags+=(--scan)
  part "jax_$net" 120 benchmarks/step.py --backbone "$net" "${common[@]}" "${flags[@]}"
  part "torch_$net" 50 benchmarks/torch_step.py --backbone "$net" "${common[@]}"
done
part crf 40 benchmarks/agreement.py --part crf --side "$side"
part walk 30 benchmarks/random_walk.py --size 128 --method steps chebyshev --steps 3
part convolutions 40 benchmarks/convolutions.py --kind radix --size "$size" --batch "$batch" --precision "$precision"
part "jax_float32_$first" 60 benchmarks/step.py --backbone "$first" "${common[@]}" --quick --precision float32
part "torch_compile_$first" 120 benchmarks/torch_step.py --backbone "$first" "${common[@]}" --compile
timeout 20 "$python" benchmarks/gpu_table.py "$out" || echo "the parts lie in $out/parts"
