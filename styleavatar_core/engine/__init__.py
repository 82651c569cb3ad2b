# SPDX-License-Identifier: Apache-2.0
"""Running an avatar bundle fast: frozen generator, engines, and the renderer that services use."""

import os

# ONNX Runtime would give this machine an id and send what it runs to its makers; it reads this when
# it is imported. Whoever wants that says so with the variable's other value.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
