#!/bin/sh
# The MLflow server. Asks for credentials where MLFLOW_AUTH_ADMIN_PASSWORD is set; without it, it stays on loopback.
#   GFM_HOST, GFM_MLFLOW_PORT     where it listens (127.0.0.1, 5000)
#   MLFLOW_BACKEND_STORE_URI      runs and registry (sqlite:///mlflow.db); a database's password goes into PGPASSWORD
#   MLFLOW_ARTIFACTS_DESTINATION  files (./mlartifacts), for example s3://gfm/mlflow
#   MLFLOW_AUTH_DATABASE_URI      users (sqlite:///mlflow-auth.db): a database of its own
#   MLFLOW_AUTH_ADMIN_USERNAME, MLFLOW_AUTH_ADMIN_PASSWORD (12 characters or more), MLFLOW_FLASK_SERVER_SECRET_KEY
set -eu
host=${GFM_HOST:-127.0.0.1}
port=${GFM_MLFLOW_PORT:-5000}
export MLFLOW_BACKEND_STORE_URI="${MLFLOW_BACKEND_STORE_URI:-sqlite:///mlflow.db}"
export MLFLOW_DISABLE_TELEMETRY=true

set -- --host "$host" --port "$port" --workers "${GFM_MLFLOW_WORKERS:-1}" \
    --artifacts-destination "${MLFLOW_ARTIFACTS_DESTINATION:-./mlartifacts}"
if [ -n "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]; then
    : "${MLFLOW_AUTH_ADMIN_USERNAME:?mlflow.sh: set it beside MLFLOW_AUTH_ADMIN_PASSWORD}"
    : "${MLFLOW_FLASK_SERVER_SECRET_KEY:?mlflow.sh: set it to a long random text, the same for every server}"
    # Names a database and no secret; the users are in there.
    MLFLOW_AUTH_CONFIG_PATH=$(mktemp "${TMPDIR:-/tmp}/mlflow-auth.XXXXXX")
    export MLFLOW_AUTH_CONFIG_PATH
    printf '[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = %s\n' \
        "${MLFLOW_AUTH_DATABASE_URI:-sqlite:///mlflow-auth.db}" >"$MLFLOW_AUTH_CONFIG_PATH"
    set -- "$@" --app-name basic-auth
else
    case $host in
    127.0.0.1 | localhost | ::1) ;;
    *)
        echo "mlflow.sh: GFM_HOST = $host is open to others; set MLFLOW_AUTH_ADMIN_USERNAME and MLFLOW_AUTH_ADMIN_PASSWORD" >&2
        exit 2
        ;;
    esac
fi
# Several servers that make the tables of a fresh database at once break it.
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
exec mlflow server "$@"
