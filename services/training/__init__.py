# SPDX-License-Identifier: Apache-2.0
"""The trainer: takes training jobs from Redis and puts finished avatars into the store."""
