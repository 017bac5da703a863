#!/usr/bin/env bash
# Submits a run to SLURM, or prints the submission with --dry-run:
#
#   launch/slurm.sh --nodes=2 --gpus-per-node=8 --time=24:00:00 \
#     --config=cifar10_crop_blur --workdir=/shared/runs/crop_blur [--dry-run]
#
# --config, --config.x, --workdir, --mode, --step and --deterministic are passed to main, all other
# options to sbatch, where they override those set here. There is one task per GPU, or one per node
# without --gpus-per-node. The task with local number i uses GPU i of the node.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

dry_run='' config='' workdir='' after='launch.finished' tasks=1
main=() options=()
while (($#)); do
  case $1 in
    --dry-run) dry_run=yes ;;
    --deterministic) main+=("$1") ;;
    --config | --config.* | --config=* | --workdir | --workdir=* | --mode | --mode=* | --step | \
      --step=* | --gpus-per-node | --gpus-per-node=* | --gres | --gres=*)
      if [[ $1 != *=* ]]; then
        (($# > 1)) || fail "$1: missing value. Specify $1=VALUE."
        set -- "$1=$2" "${@:3}"
      fi
      value=${1#*=}
      case $1 in
        --gpus-per-node=* | --gres=gpu*)
          count=${value##*:} # the format is [type:]count
          [[ $count =~ ^[0-9]+$ ]] && tasks=$count
          options+=("$1")
          ;;
        --gres=*) options+=("$1") ;;
        *) main+=("$1") ;;
      esac
      case $1 in
        --config=*) config=$value ;;
        --workdir=*) workdir=$value ;;
        --mode=eval) after='' ;;
      esac
      ;;
    --gpus | --gpus=* | -G* | --gpus-per-task | --gpus-per-task=*)
      fail "${1%%=*}: not supported. Specify the GPUs per node with --gpus-per-node."
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

[[ -f launch/slurm.sh ]] || fail 'launch/slurm.sh: not found. Run it from the root of a clone.'
[[ $config ]] ||
  fail '--config: missing. Specify a config, such as --config=cifar10_crop_blur.'
if [[ ${config%%:*} == *.py || $config == */* ]]; then # else, the name of a config
  [[ -f ${config%%:*} ]] || fail "--config: ${config%%:*} does not exist. Check the path."
fi
[[ $workdir ]] || fail '--workdir: missing. Specify a folder on shared storage.'
python=$(command -v python) ||
  fail 'python: not found. Activate the environment that contains contextssl_jax.'

# The name identifies the workdir. Jobs of the same name do not run concurrently.
absolute=$(realpath -m -- "${workdir/#"~/"/"$HOME/"}")
name=${absolute##*/}-$(printf %s "$absolute" | cksum | cut -d' ' -f1)
options=(
  "--job-name=$name" --dependency=singleton "--ntasks-per-node=$tasks"
  --signal=TERM@120 --requeue --open-mode=append ${options[@]+"${options[@]}"}
)

script=$(
  echo '#!/bin/bash'
  printf 'run=('
  printf ' %q' "$python" -m contextssl_jax.main "${main[@]}"
  printf ' )\nfinished=('
  if [[ $after ]]; then printf ' %q' "$python" -m "$after" "$workdir"; else printf ' true'; fi
  printf ' )\n'
  cat <<'SCRIPT'

# SLURM sends SIGTERM to the tasks 120 s before the time limit and before a preemption, on which they
# save and exit. When the job is cancelled, it sends SIGTERM to this shell, which forwards it to the
# tasks with scancel. srun would kill them.
cancelled=''
trap 'cancelled=yes again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

export PYTHONUNBUFFERED=1
srun --kill-on-bad-exit=1 --label \
  ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} "${run[@]}" &
again=yes
while [[ $again ]]; do # a trap interrupts wait
  again=''
  wait $!
  status=$?
done

if [[ $status == 0 && ! $cancelled ]]; then
  "${finished[@]}"
  if [[ $? == 3 ]]; then
    echo "not finished: requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID" || echo "error: cannot requeue. Submit the same command again."
  fi
fi
exit "$status"
SCRIPT
)

if [[ $dry_run ]]; then
  printf 'sbatch'
  printf ' %q' "${options[@]}"
  printf " <<'SCRIPT'\n%s\nSCRIPT\n" "$script"
else
  sbatch "${options[@]}" <<<"$script"
fi
