# The MLflow server (target mlflow) and the Prefect server (target prefect), with the versions that the clients have.
#   docker build -f docker/services.Dockerfile --target mlflow -t gfm-mlflow .
FROM python:3.11.13-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true
RUN useradd --create-home --uid 1000 gfm
COPY constraints.txt /opt/gfm/
WORKDIR /home/gfm

FROM base AS mlflow
RUN pip install --no-cache-dir --constraint /opt/gfm/constraints.txt 'mlflow[auth]' psycopg2-binary boto3
COPY docker/mlflow.sh /usr/local/bin/gfm-mlflow
USER 1000
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["gfm-mlflow"]

FROM base AS prefect
RUN pip install --no-cache-dir --constraint /opt/gfm/constraints.txt prefect 'fastapi<0.151' 'sqlalchemy<2.1'
COPY docker/prefect.sh /usr/local/bin/gfm-prefect
ENV PREFECT_HOME=/home/gfm/.prefect
USER 1000
EXPOSE 4200
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4200/api/health', timeout=4)"]
CMD ["gfm-prefect"]
