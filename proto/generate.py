# SPDX-License-Identifier: Apache-2.0
"""Generates the committed Python code of ``styleavatar.v1``: ``python generate.py [FOLDER]``."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
PACKAGE = PROTO_ROOT / "styleavatar" / "v1"
HEADER = "# SPDX-License-Identifier: Apache-2.0\n"
DOCSTRINGS = {
    "styleavatar": '"""The wire contract; generated, see ``proto/README.md``."""\n',
    "styleavatar/v1": '"""Version 1 of the wire contract; generated, see ``proto/README.md``."""\n',
}


def generate(folder: Path) -> None:
    """Writes modules, type stubs and service stubs under ``folder``.

    Args:
        folder: Root of the generated package; made if it is not there.

    Raises:
        RuntimeError: When the compiler refuses a file.
    """
    for name, docstring in DOCSTRINGS.items():
        package = folder / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(HEADER + docstring)
        (package / "py.typed").touch()
    for proto in sorted(PACKAGE.glob("*.proto")):
        outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        if proto.stem.endswith("_service"):
            outputs.append(f"--grpc_python_out={folder}")
        includes = [f"-I{PROTO_ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, *outputs, str(proto)]) != 0:
            raise RuntimeError(f"protoc refused {proto.name}; its message is above.")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO_ROOT / "gen" / "python")
