# SPDX-License-Identifier: Apache-2.0
# Rendering and training on NVIDIA GPUs. The CUDA build of torch brings its own CUDA libraries; the
# driver comes from the host through the NVIDIA container runtime.
FROM python:3.11-slim-bookworm AS full
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    STYLEAVATAR_DATA=/data XDG_CACHE_HOME=/var/cache/styleavatar \
    NUMBA_CACHE_DIR=/var/cache/styleavatar/numba MPLCONFIGDIR=/var/cache/styleavatar/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
RUN useradd --create-home --uid 10001 styleavatar \
    && mkdir -p /data /var/cache/styleavatar \
    && chown styleavatar:styleavatar /data /var/cache/styleavatar
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-deps -r requirements.lock \
    && pip install -c requirements.lock "$(grep '^torch==' requirements.lock)"
COPY styleavatar_core ./styleavatar_core
COPY services ./services
COPY clients/python ./clients/python
COPY proto/gen/python ./proto/gen/python
RUN pip install --no-deps --no-build-isolation -e .
USER 10001
VOLUME /data
CMD ["styleavatar", "--help"]
