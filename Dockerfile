# syntax=docker/dockerfile:1
# Two images from one recipe:
#   docker build --target service  -t anklealign-service .    slim, CPU, no data and no model in it
#   docker build --target pipeline -t anklealign-pipeline .   everything, GPU where the host lends one
# On x86 the default torch brings CUDA along, which the service has no use for: give PyTorch's index of
# CPU wheels as TORCH_INDEX (README, "In containers") and its image is some gigabytes smaller.

ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 10001 anklealign
WORKDIR /app

FROM base AS service-libraries
ARG TORCH_INDEX=""
COPY requirements.txt requirements-serve.txt ./
RUN python -m venv /opt/venv \
    && if [ -n "$TORCH_INDEX" ]; then \
        pip install --index-url "$TORCH_INDEX" --constraint requirements.txt torch torchvision; fi \
    # What the service imports, at the pipeline's versions; DVC and the rest stay out.
    && pip install --constraint requirements.txt --requirement requirements-serve.txt \
        torch torchvision timm safetensors numpy scipy pandas pillow pi-heif matplotlib pydantic \
        pyyaml ruamel.yaml tqdm

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

FROM base AS pipeline-libraries
COPY requirements.txt ./
RUN python -m venv /opt/venv && pip install --requirement requirements.txt

FROM base AS pipeline
# DVC and versions of results need git; make runs the README's commands.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    # The mounted checkout belongs to whoever owns it on the host.
    && git config --system --add safe.directory /repo
COPY --from=pipeline-libraries /opt/venv /opt/venv
USER 10001
ENV MPLCONFIGDIR=/tmp
WORKDIR /repo
CMD ["dvc", "repro"]
