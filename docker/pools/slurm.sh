#!/bin/bash
# One pretraining over the nodes of a Slurm job, from the workspace: sbatch --nodes 2 /path/to/docker/pools/slurm.sh gfm
# The folder must be on a file system that all nodes see. A job that was cut off and queued again goes on.
#SBATCH --job-name=gfm-pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
run=${1:?slurm.sh: give a name below pretrain in params.yaml}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# The data side first, on this node: DVC runs what is stale and nothing else. The training itself is torchrun's, since
# DVC starts one process; its output is recorded afterwards as that of the stage.
dvc repro --single-item teacher
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
    --no-python gfm pretrain "$run"
dvc commit --force "pretrain@$run"
