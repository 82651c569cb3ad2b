# SPDX-License-Identifier: Apache-2.0
"""The processes around the core, and in ``common`` what they share."""
