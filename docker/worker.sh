#!/bin/sh
# A Prefect worker that runs flows as processes of this machine; makes its pool where there is none.
#   PREFECT_API_URL          the server (http://127.0.0.1:4200/api)
#   PREFECT_API_AUTH_STRING  USER:PASSWORD, where the server asks for it
#   GFM_POOL, GFM_WORKER_SLOTS  the work pool (gfm) and how many runs at once (1)
set -eu
export PREFECT_API_URL="${PREFECT_API_URL:-http://127.0.0.1:4200/api}" DO_NOT_TRACK=true
exec prefect worker start --type process --pool "${GFM_POOL:-gfm}" --limit "${GFM_WORKER_SLOTS:-1}"
