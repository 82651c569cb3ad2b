# SPDX-License-Identifier: Apache-2.0
"""The frozen generator in other runtimes' formats, and the check that they agree."""
