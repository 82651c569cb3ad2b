# SPDX-License-Identifier: Apache-2.0
"""TensorRT plans: built once for each structure and GPU, refitted for each avatar."""
