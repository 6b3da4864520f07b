#!/bin/sh
# The Prefect server. Asks for credentials where PREFECT_SERVER_API_AUTH_STRING is set; without it, it stays on loopback.
#   GFM_HOST, GFM_PREFECT_PORT          where it listens (127.0.0.1, 4200)
#   PREFECT_SERVER_API_AUTH_STRING      USER:PASSWORD; clients send the same as PREFECT_API_AUTH_STRING
#   PREFECT_SERVER_DATABASE_CONNECTION_URL  postgresql+asyncpg://USER@HOST/DATABASE, its password in PGPASSWORD (SQLite)
set -eu
host=${GFM_HOST:-127.0.0.1}
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=true
if [ -z "${PREFECT_SERVER_API_AUTH_STRING:-}" ]; then
    case $host in
    127.0.0.1 | localhost | ::1) ;;
    *)
        echo "prefect.sh: GFM_HOST = $host is open to others; set PREFECT_SERVER_API_AUTH_STRING = USER:PASSWORD" >&2
        exit 2
        ;;
    esac
fi
exec prefect server start --host "$host" --port "${GFM_PREFECT_PORT:-4200}"
