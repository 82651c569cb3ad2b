# SPDX-License-Identifier: Apache-2.0
"""Steps of the benchmark in processes of their own: what one holds, or breaks, is its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

failed_steps: list[str] = []  # what could not be measured, and why


def apart(function: Callable[..., Result], *arguments: object, **options: object) -> Result | None:
    """Calls a function in a fresh process: what it holds on a device is free again afterwards.

    Returns:
        What it gives; None where it failed, which is told at once and counted: one engine that
        cannot be had must not cost the figures of all others.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(function, *arguments, **options).result()
    except Exception as error:  # whatever runtimes raise, or the end of the process
        step = f"{function.__name__}({', '.join(map(str, arguments))})"
        failed_steps.append(f"{step}: {type(error).__name__}: {error}")
        print(f"not measured: {failed_steps[-1]}", file=sys.stderr)
        return None
