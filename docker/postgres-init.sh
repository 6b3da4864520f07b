#!/bin/sh
# Makes the databases of MLflow, its users and Prefect in a fresh PostgreSQL, each owner with a password of its own.
# The image `postgres` runs it once; elsewhere: run it as a superuser (PGHOST, PGPORT, POSTGRES_USER as psql reads them).
set -eu
: "${MLFLOW_DATABASE_PASSWORD:?set it}" "${PREFECT_DATABASE_PASSWORD:?set it}"
psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv mlflow_password MLFLOW_DATABASE_PASSWORD
\getenv prefect_password PREFECT_DATABASE_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE prefect OWNER prefect;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, prefect FROM PUBLIC;
\connect prefect
-- Prefect searches texts by trigrams; its migrations may not make the extension themselves.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
SQL
