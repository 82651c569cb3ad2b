# SPDX-License-Identifier: Apache-2.0
"""Finds the bundle that a path given by a person means, and where what is made of it goes."""

from __future__ import annotations

from pathlib import Path

from styleavatar_core.errors import NotFoundError

BUNDLE_FOLDER = "avatar"  # in the work folder of `train` and `distill`


def find_bundle(path: Path) -> Path:
    """Returns the bundle at a path: a bundle itself, or the ``avatar`` folder that ``train`` wrote.

    Raises:
        NotFoundError: There is none.
    """
    if path.suffix == ".zip" and path.is_file():
        return path
    for folder in (path, path / BUNDLE_FOLDER):
        if (folder / "avatar.json").is_file():
            return folder
    raise NotFoundError(f"there is no avatar at {path}; make one with `styleavatar train`")


def beside_bundle(bundle: Path, ending: str) -> Path:
    """Returns a path beside a bundle, named after it: nothing is ever written into a bundle."""
    place = bundle.resolve()
    return place.with_name((place.stem if place.is_file() else place.name) + ending)
