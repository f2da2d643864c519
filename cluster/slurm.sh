#!/usr/bin/env bash
# sbatch --nodes=4 cluster/slurm.sh run experiment=digits --out /shared/runs/digits-1
#
# A sweep on Slurm's nodes: starts a Ray of this job's own on them, runs the given hpo-ray command on it, and ends what
# it started. Go on with a run that the time limit ended: sbatch … cluster/slurm.sh resume /shared/runs/digits-1
# A job that Slurm itself starts again (a node failed) goes on with the run at its --out.
#
# Needs hpo-ray installed at a path that every node sees (cluster/README.md), and a shared folder:
#   HPO_RAY_SHARED         seen by all nodes under this path; default: the home directory
#   HPO_RAY_OBJECT_STORE   bytes of /dev/shm for Ray's object store on each node; default 1 GB
#   HPO_RAY_NODES_WAIT_S   seconds until all nodes must have joined; default 300
#
#SBATCH --job-name=hpo-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=hpo-ray-%j.log
#SBATCH --open-mode=append

set -euo pipefail
umask 077 # the token, and all else, is for this user alone

if [ $# = 0 ]; then
  sed -n '2,11s/^# \?//p' "$0" >&2
  exit 2
fi

# A job that Slurm starts again, after a node of it failed say, has the same number, and finds what its last attempt left.
attempt=${SLURM_RESTART_COUNT:-0}
shared="${HPO_RAY_SHARED:-$HOME}/.hpo-ray-job-$SLURM_JOB_ID"
if [ "$attempt" -gt 0 ]; then
  rm -rf -- "$shared-$((attempt - 1))"
fi
shared="$shared-$attempt"
mkdir -- "$shared" # ours, or fails: another job's token is not to be used

# Always said, never left to Ray's default: without it, a head that finds no token starts open to everyone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$shared/token"
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_START_HOOK=hpo_ray.start_hook.closed RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # nodes end after the sweep has
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

# One node's part, run by srun on each. Every port is one that is free (another's Ray may be on this machine), every
# file in a folder of its own. The first node is the head; where it listens, the others read in the shared folder.
# shellcheck disable=SC2016  # expanded on the node
node='
set -euo pipefail
folder=$(mktemp -d /tmp/hpo-ray-XXXXXX) # short: sockets have paths under 108 bytes
ray=
end() { # ray by its number; what it started ends with it
  trap "" TERM INT
  [ -z "$ray" ] || { kill -TERM "$ray" 2> /dev/null || true; wait "$ray" 2> /dev/null || true; }
  rm -rf -- "$folder"
}
trap end EXIT
trap "exit 143" TERM INT
options=(--block --temp-dir "$folder" --num-cpus "${SLURM_CPUS_PER_TASK:-1}"
  --object-store-memory "$HPO_RAY_OBJECT_STORE"
  --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0)
if [ "$SLURM_PROCID" = 0 ]; then
  ray start --head --port 0 --include-dashboard false "${options[@]}" &
  ray=$!
  until [ -s "$folder/ray_current_cluster" ]; do
    kill -0 "$ray" 2> /dev/null || { touch -- "$1/failed"; exit 1; }
    sleep 0.2
  done
  cp -- "$folder/ray_current_cluster" "$1/address.new"
  mv -- "$1/address.new" "$1/address"
else
  until ls -- "$1" > /dev/null && [ -s "$1/address" ]; do sleep 0.2; done # ls: NFS then looks anew
  ray start --address "$(cat -- "$1/address")" "${options[@]}" &
  ray=$!
fi
wait "$ray"
'

nodes= # the srun that holds them
driver=
# shellcheck disable=SC2317,SC2329  # called by the trap
end() {
  code=$?
  trap '' TERM INT
  for pid in "$driver" "$nodes"; do
    [ -z "$pid" ] || { kill -TERM "$pid" 2> /dev/null && wait "$pid" 2> /dev/null; } || true
  done
  rm -rf -- "$shared"
  exit "$code"
}
trap end EXIT
trap 'exit 143' TERM INT # Slurm: the time is nearly up, or the job was cancelled

export HPO_RAY_OBJECT_STORE="${HPO_RAY_OBJECT_STORE:-1000000000}"
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  --kill-on-bad-exit=0 bash -c "$node" node "$shared" &
nodes=$!

deadline=$((SECONDS + ${HPO_RAY_NODES_WAIT_S:-300}))
until [ -s "$shared/address" ]; do
  if [ -e "$shared/failed" ] || ! kill -0 "$nodes" 2> /dev/null || [ "$SECONDS" -ge "$deadline" ]; then
    echo "slurm.sh: Ray did not start on the first node; what it said is above" >&2
    exit 1
  fi
  sleep 0.2
done
address=$(cat -- "$shared/address")

# slots=auto fills what has joined when the sweep starts.
python - "$address" "$SLURM_JOB_NUM_NODES" "$((deadline - SECONDS))" << 'END' &
import sys
import time

import ray

address, wanted, wait_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ray.init(address, log_to_driver=False, logging_level="ERROR")
until = time.monotonic() + wait_s
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > until:
        sys.exit(f"slurm.sh: {alive} of {wanted} nodes have joined")
    time.sleep(0.5)
END
driver=$!
wait "$driver"

# Started again, a run goes on where it was.
if [ "$attempt" -gt 0 ]; then
  out=''
  before=''
  for word in "$@"; do
    case "$before $word" in
      *" --out="*) out=${word#--out=} ;;
      "--out "*) out=$word ;;
    esac
    before=$word
  done
  if [ "$1" = run ] && [ -n "$out" ] && [ -e "$out/events.jsonl" ]; then
    set -- resume "$out"
  fi
  if [ "$1" = resume ] && [ -e "${2-}/driver.lock" ]; then
    sleep 61 & # a driver that died with its node is taken for dead after a minute
    driver=$!
    wait "$driver"
  fi
fi

hpo-ray "$@" "ray.address=$address" &
driver=$!
wait "$driver"
