#!/usr/bin/env bash
# Runs a config on every host of a TPU slice: launch/tpu_vm.sh NAME ZONE --config=configs/pnoc_folder.py ...
# The repository and its environment must be at ~/pnoc_jax of each host; --workdir on a shared disk.
set -euo pipefail
name=$1
zone=$2
shift 2
printf -v arguments '%q ' "$@"
# `on`: JAX asks the machine's metadata for the other hosts, which `auto` does not.
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd ~/pnoc_jax && source .venv/bin/activate && python launch/run.py --distributed=on $arguments"
