# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what is heavy, put in place through settings; never part of the package."""
