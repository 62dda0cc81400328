#!/usr/bin/env bash
# Starts the whole mesh on this machine and the demo run on it; Ctrl-C stops everything.
#   ./start-dev.sh            watch the demo at http://127.0.0.1:8765
#   ./start-dev.sh --exit     run it to its end, print its summary as JSON, stop
#   ./start-dev.sh --reload   restart a service when its source changes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
scripts/ensure-venv run >&2
exec .venv/bin/trademesh up "$@"
