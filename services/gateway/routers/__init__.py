# SPDX-License-Identifier: Apache-2.0
"""HTTP routes of the gateway, one file per resource."""
