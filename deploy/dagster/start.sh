#!/bin/sh
# Starts Dagster with its schedule, its sensor and its page on http://127.0.0.1:3000, in an
# environment of its own. Settings: see definitions.py. Ctrl-C or SIGTERM ends it with all that
# it started.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=${VERSATUNE_DAGSTER_VENV:-"$here/.venv"}
if [ ! -x "$venv/bin/dagster" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
fi
DAGSTER_HOME=${DAGSTER_HOME:-"$here/home"}
export DAGSTER_HOME
PATH="$venv/bin:$PATH"
export PATH
exec python "$here/family.py" dagster dev -f "$here/definitions.py" -h 127.0.0.1 \
    -p "${VERSATUNE_DAGSTER_PORT:-3000}"
