# SPDX-License-Identifier: Apache-2.0
"""The frozen network as an ONNX graph, and the runtimes for CPUs that take it."""
