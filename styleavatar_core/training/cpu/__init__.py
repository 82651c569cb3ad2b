# SPDX-License-Identifier: Apache-2.0
"""Generator layers as a CPU trains them: in few passes, with the same results."""
