# Everything the chain needs, for CPU or a CUDA host (torch's wheels bring CUDA along); also the Prefect worker.
#   docker build -f docker/train.Dockerfile --build-arg GFM_COMMIT=$(git rev-parse HEAD) -t gfm .
#   docker run --rm --gpus all -v "$PWD/workspaces/mine:/work" gfm dvc repro
FROM python:3.11.13-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/gfm
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt '.[lora,s3]'
COPY docker/worker.sh /usr/local/bin/gfm-worker
# Lineage needs the commit, and an image has no repository.
ARG GFM_COMMIT
ENV GFM_COMMIT=${GFM_COMMIT} DVC_NO_ANALYTICS=1 DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true GX_ANALYTICS_ENABLED=false
RUN useradd --create-home --uid 1000 gfm
USER 1000
ENV PREFECT_HOME=/home/gfm/.prefect
WORKDIR /work
CMD ["gfm", "--help"]
