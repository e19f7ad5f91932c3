#!/usr/bin/env bash
# Everything that one GPU can be asked, in 8 minutes: benchmarks/gpu.sh, from the project's root.
# Needs jax, flax, optax, chex, numpy; without torch and timm their rows say so. All training steps
# compile at once; then each has the GPU to itself in turn. Leaves OUT/gpu.json, OUT/gpu.md (the
# table) and OUT/log. Each part has a limit and the whole has one, so it always ends.
# A dry run on a CPU: SIZE=64 SIDE=64 BATCH=2 STEPS=1 STRIDE=32 PRECISION=float32 NETS=resnest14 benchmarks/gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=${OUT:-gpu} python=${PYTHON:-python3} limit=${LIMIT:-470} compiling=${COMPILING:-290}
size=${SIZE:-512} batch=${BATCH:-16} steps=${STEPS:-15} stride=${STRIDE:-16}
precision=${PRECISION:-bfloat16} side=${SIDE:-500}
read -ra nets <<<"${NETS:-resnest50 resnest101 resnest269}"
rm -rf "$out/parts" "$out/turns"
mkdir -p "$out/parts" "$out/turns"
: >"$out/log"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
declare -A pids
names=() ready=() late=()

# begin NAME FILE ARGUMENTS: starts a benchmark, which writes its rows to parts/NAME.json.
begin() {
  local name=$1
  shift
  timeout --kill-after=5 "$limit" "$python" "$@" --json="$out/parts/$name.json" \
    >"$out/parts/$name.text" 2>&1 &
  pids[$name]=$!
}

# end NAME SECONDS: waits for it, for at most so long; notes why it failed, if it did.
end() {
  local name=$1 until=$((SECONDS + $2)) pid=${pids[$1]} text=$out/parts/$1.text code=0
  ((until < limit)) || until=$limit
  echo "== $name, at $SECONDS s, until $until s" | tee -a "$out/log"
  while kill -0 "$pid" 2>/dev/null && ((SECONDS < until)); do sleep 0.2; done
  if kill "$pid" 2>/dev/null; then
    echo "stopped at $SECONDS s" >"$out/parts/$name.said"
  fi
  wait "$pid" || code=$?
  if ((code)) && [[ ! -e $out/parts/$name.said ]]; then
    # A missing package is named in the first line, an error in the last.
    grep -m 1 'failed to import' "$text" >"$out/parts/$name.said" ||
      grep -v '^[[:space:]]*$' "$text" | tail -n 1 >"$out/parts/$name.said"
  fi
  cat "$text" >>"$out/log"
}

# part NAME SECONDS FILE ARGUMENTS: a benchmark from begin to end.
part() {
  local name=$1 seconds=$2
  shift 2
  if ((SECONDS >= limit)); then
    echo "left out: the $limit s are over" >"$out/parts/$name.said"
    return
  fi
  begin "$name" "$@"
  end "$name" "$seconds"
}

# queue NAME FILE ARGUMENTS: a training step that waits for its turn.
queue() {
  local name=$1
  shift
  names+=("$name")
  begin "$name" "$@" "${common[@]}" --turn="$out/turns/$name"
}

common=(--method pnoc --size "$size" --batch "$batch" --output_stride "$stride" --steps "$steps")
first=${nets[0]}
for net in "${nets[@]}"; do
  flags=(--quick)
  # So many blocks take minutes to compile one by one.
  [[ $net == resnest200 || $net == resnest269 ]] && flags+=(--scan)
  [[ $net == "$first" ]] && flags+=(--trace "$out/trace")
  queue "jax_$net" benchmarks/step.py --backbone "$net" --precision "$precision" "${flags[@]}"
done
queue "torch_compile_$first" benchmarks/torch_step.py --backbone "$first" --precision "$precision" --compile
begin agreement benchmarks/agreement.py --part step
for name in "${names[@]}"; do
  while kill -0 "${pids[$name]}" 2>/dev/null && [[ ! -e $out/turns/$name.ready ]] &&
    ((SECONDS < compiling)); do sleep 0.2; done
done
end agreement 5
# Who still compiles comes last, so that the others are alone.
for name in "${names[@]}"; do [[ -e $out/turns/$name.ready ]] && ready+=("$name") || late+=("$name"); done
for name in "${ready[@]}" "${late[@]}"; do
  touch "$out/turns/$name"
  end "$name" 45
done
# These compile nothing, and are slow to start beside who does.
for net in "${nets[@]}"; do
  part "torch_$net" 40 benchmarks/torch_step.py --backbone "$net" --precision "$precision" "${common[@]}"
done
part crf 25 benchmarks/agreement.py --part crf --side "$side"
part walk 20 benchmarks/random_walk.py --size 128 --method steps chebyshev --steps 3
for kind in radix depthwise; do
  part "$kind" 25 benchmarks/convolutions.py --kind "$kind" --size "$size" --batch "$batch" --precision "$precision"
done
timeout 20 "$python" benchmarks/gpu_table.py "$out" || echo "the parts lie in $out/parts"
