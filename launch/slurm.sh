#!/usr/bin/env bash
# One task a GPU node: sbatch --nodes=4 --gres=gpu:8 launch/slurm.sh --config=configs/pnoc_folder.py ...
# The processes find each other through SLURM; --workdir must be on a shared file system.
#SBATCH --job-name=pnoc
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# A task has all GPUs of its node: by default JAX gives a task of SLURM a single one.
if [[ ${SLURM_GPUS_ON_NODE:-0} -gt 0 ]]; then
  JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi
# SIGTERM, two minutes before the limit, saves and ends the run with 143; started again, it resumes.
code=0
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-16}" \
  python launch/run.py --config.runtime.workers=8 "$@" || code=$?
if [[ $code -eq 143 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
