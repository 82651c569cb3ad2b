# SPDX-License-Identifier: Apache-2.0
"""Which names of TensorRT's Python bindings exist: ``python -m tools.tensorrt_facts WHEEL...``.

Reads the names that our code uses (see ``used_names``) and looks each up in the compiled bindings
of every wheel given (``tensorrt_cu13_bindings``; its libraries and a GPU are not needed). Writes
the facts that ``tests/unit/core/engine/test_tensorrt.py`` compares our code with.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = tuple(
    ROOT / "styleavatar_core" / "engine" / name
    for name in ("tensorrt_build.py", "tensorrt_engine.py")
)
FACTS = ROOT / "tests" / "unit" / "core" / "engine" / "tensorrt_facts.json"
# Names that came or went between versions 10 and 11, or before: they show that looking finds out.
CONTROLS = (
    "ICudaEngine.num_bindings",
    "IExecutionContext.execute_async_v2",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "Refitter.get_tensors_with_dynamic_range",
    "Refitter.release_refit_resources",
)
# What our variables hold.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "timings": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
}


def used_names(sources: tuple[Path, ...] = SOURCES) -> list[str]:
    """Returns the names that sources use: ``Class``, ``Class.method``, ``Enum.MEMBER``.

    Arguments that are passed by name are ``Class.method:argument``.
    """
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                names.update(_name_of(node))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                for name in _name_of(node.func):
                    names.update(f"{name}:{keyword.arg}" for keyword in node.keywords)
    return sorted(names)


def _name_of(node: ast.Attribute) -> list[str]:
    """Returns the TensorRT name of an attribute expression, if it is one."""
    path = ast.unparse(node).split(".")
    if path[0] == "self":
        path = path[1:]
    if path[0] == "tensorrt" and len(path) > 1 and not path[1].startswith("__"):
        return [".".join(path[1:])]
    if len(path) == 2 and path[0] in CLASSES:
        return [f"{CLASSES[path[0]]}.{path[1]}"]
    return []


def find_name(bindings: bytes, name: str) -> bool:
    """Whether compiled bindings define a name.

    Methods have a documentation symbol that names their class; classes, properties and members of
    enumerations are found as the string that they are registered under.
    """
    name, _, argument = name.partition(":")
    if argument and argument.encode() + b"\0" not in bindings:
        return False
    owner, _, member = name.rpartition(".")
    text = (member or name).encode()
    symbol = rb"\d+" + re.escape(owner.encode()) + rb"DocL\d+" + re.escape(text) + rb"E"
    if owner and re.search(symbol, bindings):
        return True
    return text + b"\0" in bindings and (not owner or owner.encode() + b"\0" in bindings)


def facts_of(wheel: Path, names: list[str]) -> dict[str, bool]:
    """Returns whether each name exists in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (library,) = [entry for entry in archive.namelist() if entry.endswith("tensorrt.so")]
        bindings = archive.read(library)
    return {name: find_name(bindings, name) for name in names}


def main() -> None:
    """Writes the facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    names = [*used_names(), *CONTROLS]
    facts = {
        wheel.name.split("-")[1]: facts_of(wheel, names) for wheel in parser.parse_args().wheels
    }
    FACTS.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
