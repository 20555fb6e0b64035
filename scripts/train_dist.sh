#!/usr/bin/env bash
# Train one recipe on several machines: bash scripts/train_dist.sh -n WORKERS [-s SERVERS] [-H HOSTFILE] RECIPE [OPTION...]
# Without HOSTFILE (one host a line, which ssh reaches without a password) all processes are on this machine. The hosts
# need this folder at the same path, the data, and --save-prefix on a file system that all see; train.batch_size is the
# whole batch of all workers. Options go to `python -m gan_kd train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
exec .venv/bin/python -m gan_kd dist "$@"
