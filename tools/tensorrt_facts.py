# SPDX-License-Identifier: Apache-2.0
"""What TensorRT's Python bindings take: ``python -m tools.tensorrt_facts WHEEL...``.

Reads the names that our code uses (see ``used_calls``) and looks each up in the bindings of every
wheel given (``tensorrt_cu13_bindings`` for this version of Python). They are really imported, with
empty libraries in the place of TensorRT's own: neither those nor a GPU are needed, a C compiler is.
Writes the facts that ``tests/unit/core/engine/test_tensorrt.py`` compares our code with.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
SOURCES = tuple(
    ROOT / "styleavatar_core" / "engine" / "tensorrt" / name for name in ("build.py", "engine.py")
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
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
}
# By name of the bindings: the signatures of a method or a constructor, none for other things; null
# if there is no such name.
Facts = dict[str, list[str] | None]

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# Runs in a process of its own: the bindings of two versions do not go into one.
_READER = """
import functools, importlib.util, json, sys
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
facts = {}
for name in sys.argv[2:]:
    try:
        found = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        facts[name] = None
        continue
    facts[name] = str((found.__init__ if isinstance(found, type) else found).__doc__)
json.dump(facts, sys.stdout)
"""


@dataclass(frozen=True, slots=True, order=True)
class UsedName:
    """A name of the bindings in our code.

    Attributes:
        name: ``Class``, ``Class.method``, ``Enum.MEMBER``.
        positional_count: Arguments of a call that are passed by place; None where it is no call.
        keywords: Names of those that are passed by name.
    """

    name: str
    positional_count: int | None = None
    keywords: tuple[str, ...] = ()

    def fits(self, signature: str) -> bool:
        """Whether a call has the arguments of a signature, as the bindings write them."""
        parameters = parameters_of(signature)
        given = [*list(parameters)[: self.positional_count or 0], *self.keywords]
        missing = {name for name, is_needed in parameters.items() if is_needed} - set(given)
        is_known = set(self.keywords) <= set(parameters)
        is_short = (self.positional_count or 0) <= len(parameters)
        return is_known and is_short and not missing and len(given) == len(set(given))


def used_calls(sources: tuple[Path, ...] = SOURCES) -> list[UsedName]:
    """Returns the names that sources use, each with the arguments of each call."""
    found: set[UsedName] = set()
    called: set[int] = set()
    for source in sources:
        nodes = list(ast.walk(ast.parse(source.read_text())))
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called.add(id(node.func))
                keywords = tuple(str(keyword.arg) for keyword in node.keywords)
                found.update(UsedName(n, len(node.args), keywords) for n in _name_of(node.func))
        for node in nodes:
            if isinstance(node, ast.Attribute) and id(node) not in called:
                found.update(map(UsedName, _name_of(node)))
    return sorted(found, key=lambda used: (used.name, used.positional_count or 0, used.keywords))


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


def parameters_of(signature: str) -> dict[str, bool]:
    """Returns the parameters of ``name(self: T, a: T, b: T = 1) -> T``: whether each is needed."""
    inner = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    parts, depth = [""], 0
    for letter in inner:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    named = {part.split(":")[0].strip(): " = " not in part for part in parts if part.strip()}
    return {name: is_needed for name, is_needed in named.items() if name != "self"}


def signatures_of(doc: str) -> list[str]:
    """Returns the signatures in a docstring of the bindings, where a name is overloaded all."""
    found = re.findall(r"^(?:\d+\. )?(\w+\(.*\) -> .*)$", doc, re.MULTILINE)
    return [text for text in found if "(*args, **kwargs)" not in text]


def facts_of(wheel: Path, names: list[str]) -> Facts:
    """Returns what a wheel says of names."""
    version = wheel.name.split("-")[1]
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            (library,) = [entry for entry in archive.namelist() if entry.endswith("tensorrt.so")]
            bindings = archive.extract(library, folder)
        _write_empty_libraries(Path(folder), version.split(".")[0])
        result = subprocess.run(
            [sys.executable, "-c", _READER, bindings, *names],
            env={**os.environ, "LD_LIBRARY_PATH": folder},
            check=True,
            capture_output=True,
            text=True,
        )
    docs: dict[str, str | None] = json.loads(result.stdout)
    return {name: None if doc is None else signatures_of(doc) for name, doc in docs.items()}


def _write_empty_libraries(folder: Path, major: str) -> None:
    """Writes libraries with the functions that the bindings ask for, which do nothing."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    for name in _LIBRARIES:
        library = f"lib{name}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library)]
        subprocess.run(["cc", *options, str(source)], check=True)


def main() -> None:
    """Writes the facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    names = sorted({used.name for used in used_calls()} | set(CONTROLS))
    facts = {
        wheel.name.split("-")[1]: facts_of(wheel, names) for wheel in parser.parse_args().wheels
    }
    FACTS.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
