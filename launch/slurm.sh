#!/usr/bin/env bash
# Submits a run to SLURM, or prints what would be submitted:
#
#   launch/slurm.sh --nodes=2 --gpus-per-node=8 --time=24:00:00 \
#     --config=configs/cifar10_crop_blur.py --workdir=/shared/runs/crop_blur [--dry-run]
#
# --config, --config.x, --workdir, --mode, --step and --deterministic are main's; every other option
# is sbatch's and may override those set here. There is one task a GPU, or one a node without
# --gpus-per-node; the task with local number i takes the node's GPU i.
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
        (($# > 1)) || fail "$1: needs a value"
        set -- "$1=$2" "${@:3}"
      fi
      value=${1#*=}
      case $1 in
        --gpus-per-node=* | --gres=gpu*)
          count=${value##*:} # of [type:]count
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
      fail "${1%%=*}: say how many GPUs a node with --gpus-per-node; each gets one task"
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

[[ -f launch/slurm.sh ]] || fail 'run launch/slurm.sh from the folder that launch is in'
[[ $config ]] || fail '--config: name a config file, such as --config=configs/cifar10_crop_blur.py'
[[ -f ${config%%:*} ]] || fail "--config: there is no file ${config%%:*}"
[[ $workdir ]] || fail '--workdir: name a folder that all nodes share'
python=$(command -v python) || fail 'python: activate the environment that has contextssl_jax'

# A second job of the same name waits for the first: two must not write to one folder.
whole=$(realpath -m -- "$workdir")
name=${whole##*/}-$(printf %s "$whole" | cksum | cut -d' ' -f1)
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

# SLURM sends SIGTERM to the tasks 120 s before the time is up, and before a preemption: they save
# and end. To this shell it sends SIGTERM where the job is cancelled, which then asks the tasks
# itself: through scancel, as srun answers SIGTERM by killing them.
cancelled=''
trap 'cancelled=yes again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

export PYTHONUNBUFFERED=1
srun --kill-on-bad-exit=1 --label \
  ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} "${run[@]}" &
again=yes
while [[ $again ]]; do # a trap ends wait
  again=''
  wait $!
  status=$?
done

if [[ $status == 0 && ! $cancelled ]]; then
  "${finished[@]}"
  if [[ $? == 3 ]]; then
    echo "not finished: job $SLURM_JOB_ID goes back to the queue"
    scontrol requeue "$SLURM_JOB_ID" || echo "error: cannot requeue; submit the same command again"
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
