# SPDX-License-Identifier: Apache-2.0
"""Worker processes: heavy libraries in a child, messages over a socket, pixels in shared memory.

The child is started as ``python -m MODULE`` and not by ``multiprocessing``: its messages are JSON
lines that asyncio reads as any stream (nothing is pickled), the shared memory is an anonymous file
that the kernel frees however the processes end, and the child ends when its parent does.
"""
