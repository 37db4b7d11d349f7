#!/usr/bin/env bash
# launch/train.sh [CONFIG] [--workdir=DIR] [--config.KEY=VALUE ...] [--nproc=N | --coordinator=HOST:PORT --num=N --id=I]
# Trains CONFIG (default: the quickstart) on all local devices, evaluates it and writes its report. The first call on
# a machine makes the environment. The same command again goes on where it stopped. Paths are relative to the repository.
# --nproc starts N processes on this host, which share its GPUs; --coordinator and its two companions make this process
# number I of N on several hosts. Under Slurm, Open MPI and Kubernetes the processes find each other: docs/clusters.md.
# A run that was killed, preempted or has lost a peer is started again, FER_JAX_RESTARTS times (3).
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
. launch/environment.sh

config=configs/quickstart.py
case ${1-} in
    --config=*) config=${1#--config=}; shift ;;
    -h|--help) sed -n '2,7s/^# //p' launch/train.sh; exit ;;
    ''|-*) ;;
    *) config=$1; shift ;;
esac
file=${config%%:*}
if [ ! -f "$file" ] && [ -f "$here/$file" ]; then config=$here/$config; fi

# Without --workdir the run lives in checkpoints/, under the configuration's name.
workdir=()
case " $* " in
    *" --workdir"*) ;;
    *) name=${config##*configs/}; name=${name/.py/}; workdir=(--workdir="checkpoints/${name//[:\/]/_}") ;;
esac

if has_gpu; then
    environment .venv gpu
else
    echo "no NVIDIA GPU found: training on the CPU" >&2
    # Huge pages for the heap (docs/performance.md): glibc reads this before main.
    export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
    environment .venv ''
fi
exec "$python" -m fer_jax.launcher --config="$config" "${workdir[@]}" "$@"
