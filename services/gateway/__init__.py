# SPDX-License-Identifier: Apache-2.0
"""The gateway: REST and server-sent events in front of job queue and artifact store."""
