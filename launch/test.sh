#!/usr/bin/env bash
# launch/test.sh [pytest arguments]: all tests on the CPU. The first call on a machine makes the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
environment .venv-test test
export JAX_PLATFORMS=cpu
exec "$python" -m pytest "$@"
