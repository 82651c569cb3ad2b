# SPDX-License-Identifier: Apache-2.0
"""The wire contract; generated, see ``proto/README.md``."""
