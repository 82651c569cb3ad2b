# SPDX-License-Identifier: Apache-2.0
"""Rasterizing by OpenGL, off screen by EGL: the same fragments as the software path, from a GPU."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from functools import cache

import numpy as np

from styleavatar_core.errors import EngineUnavailableError
from styleavatar_core.raster import software
from styleavatar_core.raster.egl import INT, POINTER, UINT, EglContext
from styleavatar_core.raster.software import Fragments, IntArray
from styleavatar_core.types import FloatArray

logger = logging.getLogger(__name__)

Rasterize = Callable[[FloatArray, IntArray, int, int], Fragments]

# Names of OpenGL, as its registry numbers them.
_VERTEX_SHADER, _FRAGMENT_SHADER, _ARRAY_BUFFER, _STREAM_DRAW = 0x8B31, 0x8B30, 0x8892, 0x88E0
_COMPILED, _LINKED, _COLOR, _DEPTH, _RENDERER = 0x8B81, 0x8B82, 0x4000, 0x0100, 0x1F01
_FRAMEBUFFER, _RENDERBUFFER, _COLOR_0, _DEPTH_0 = 0x8D40, 0x8D41, 0x8CE0, 0x8D00
_R32F, _DEPTH_32F, _RED, _FLOAT, _TRIANGLES = 0x822E, 0x8CAC, 0x1903, 0x1406, 4
_DEPTH_TEST, _CULL_FACE, _COMPLETE = 0x0B71, 0x0B44, 0x8CD5

# A device may say that it is a GPU and be drawn for by one of these, e.g. beside MediaPipe.
_CPU_RENDERERS = ("llvmpipe", "softpipe", "SWR")
_VERTEX_SOURCE = b"""#version 330 core
layout(location = 0) in vec3 place;
flat out int face;
void main() {
    face = gl_VertexID / 3;
    gl_Position = vec4(place, 1.0);
}
"""
_FRAGMENT_SOURCE = b"""#version 330 core
flat in int face;
out float fragment;
void main() { fragment = float(face + 1); }
"""


class OpenGlRasterizer:
    """Does what :func:`styleavatar_core.raster.software.rasterize` does; for one thread at a time.

    Args:
        needs_gpu: Whether drivers that draw on the CPU, slower than our own path, are left out.

    Raises:
        EngineUnavailableError: There is no libEGL, it gives no context of OpenGL 3.3, or that one
            draws on the CPU and a GPU is needed.
    """

    def __init__(self, *, needs_gpu: bool = False) -> None:
        self._context = EglContext(needs_gpu=needs_gpu)
        self._gl = self._context.function
        with self._context.current():
            get_string = self._gl("glGetString", ctypes.c_char_p, UINT)
            self.renderer_name = (get_string(_RENDERER) or b"").decode()
            if needs_gpu and self.renderer_name.startswith(_CPU_RENDERERS):
                raise EngineUnavailableError(f"OpenGL draws on the CPU here ({self.renderer_name})")
            self._prepare()
        self._size = (0, 0)
        self._lock = threading.Lock()

    def rasterize(self, points: FloatArray, faces: IntArray, width: int, height: int) -> Fragments:
        """Finds the nearest face at every pixel centre; see the software path."""
        places = self._normalized(points, width, height)[faces.ravel()]
        image = np.empty((height, width), np.float32)
        with self._lock, self._context.current():
            self._resize(width, height)
            self._draw(np.ascontiguousarray(places, np.float32), image)
        return Fragments(image.astype(np.int32) - 1, np.ascontiguousarray(points, np.float32))

    @staticmethod
    def _normalized(points: FloatArray, width: int, height: int) -> FloatArray:
        """Maps pixels to the cube that OpenGL draws; row 0 stays the first row that is read."""
        finite = np.isfinite(points).all(axis=1)
        depth = points[finite, 2] if finite.any() else np.zeros(1, np.float32)
        near, far = float(depth.min()), float(depth.max())
        scale = np.array([2 / width, 2 / height, 1.98 / max(far - near, 1e-9)], np.float32)
        middle = np.array([width / 2, height / 2, (near + far) / 2], np.float32)
        return (points - middle) * scale

    def _draw(self, places: FloatArray, image: FloatArray) -> None:
        height, width = image.shape
        buffer_data = self._gl("glBufferData", None, UINT, ctypes.c_ssize_t, POINTER, UINT)
        buffer_data(_ARRAY_BUFFER, places.nbytes, places.ctypes.data, _STREAM_DRAW)
        self._gl("glClear", None, UINT)(_COLOR | _DEPTH)
        self._gl("glDrawArrays", None, UINT, INT, INT)(_TRIANGLES, 0, len(places))
        read = self._gl("glReadPixels", None, INT, INT, INT, INT, UINT, UINT, POINTER)
        read(0, 0, width, height, _RED, _FLOAT, image.ctypes.data)

    def _resize(self, width: int, height: int) -> None:
        if self._size == (width, height):
            return
        storage = self._gl("glRenderbufferStorage", None, UINT, UINT, INT, INT)
        bind = self._gl("glBindRenderbuffer", None, UINT, UINT)
        for buffer, kind in zip(self._buffers, (_R32F, _DEPTH_32F), strict=True):
            bind(_RENDERBUFFER, buffer)
            storage(_RENDERBUFFER, kind, width, height)
        status = self._gl("glCheckFramebufferStatus", UINT, UINT)(_FRAMEBUFFER)
        if status != _COMPLETE:
            raise EngineUnavailableError(
                f"OpenGL cannot draw {width}x{height} pixels of floats (status {status:#x})"
            )
        self._gl("glViewport", None, INT, INT, INT, INT)(0, 0, width, height)
        self._size = (width, height)

    def _prepare(self) -> None:
        """Makes program, vertex buffer and frame buffer, and binds them for good."""
        self._gl("glUseProgram", None, UINT)(self._program())
        for kind in ("VertexArrays", "Buffers", "Framebuffers"):
            name = self._generated(f"glGen{kind}")
            if kind == "VertexArrays":
                self._gl("glBindVertexArray", None, UINT)(name)
            elif kind == "Buffers":
                self._gl("glBindBuffer", None, UINT, UINT)(_ARRAY_BUFFER, name)
            else:
                self._gl("glBindFramebuffer", None, UINT, UINT)(_FRAMEBUFFER, name)
        self._gl("glEnableVertexAttribArray", None, UINT)(0)
        attribute = self._gl(
            "glVertexAttribPointer", None, UINT, INT, UINT, ctypes.c_ubyte, INT, POINTER
        )
        attribute(0, 3, _FLOAT, 0, 0, None)
        self._buffers = [self._generated("glGenRenderbuffers") for _ in range(2)]
        bind = self._gl("glBindRenderbuffer", None, UINT, UINT)
        attach = self._gl("glFramebufferRenderbuffer", None, UINT, UINT, UINT, UINT)
        for buffer, place in zip(self._buffers, (_COLOR_0, _DEPTH_0), strict=True):
            bind(_RENDERBUFFER, buffer)
            attach(_FRAMEBUFFER, place, _RENDERBUFFER, buffer)
        enable = self._gl("glEnable", None, UINT)
        enable(_DEPTH_TEST)
        enable(_CULL_FACE)

    def _program(self) -> int:
        program = self._gl("glCreateProgram", UINT)()
        source = self._gl("glShaderSource", None, UINT, INT, POINTER, POINTER)
        for kind, text in ((_VERTEX_SHADER, _VERTEX_SOURCE), (_FRAGMENT_SHADER, _FRAGMENT_SOURCE)):
            shader = self._gl("glCreateShader", UINT, UINT)(kind)
            lines = (ctypes.c_char_p * 1)(text)
            source(shader, 1, ctypes.cast(lines, POINTER), None)
            self._gl("glCompileShader", None, UINT)(shader)
            status = self._gl("glGetShaderiv", None, UINT, UINT, POINTER)
            self._require(status, shader, _COMPILED)
            self._gl("glAttachShader", None, UINT, UINT)(program, shader)
        self._gl("glLinkProgram", None, UINT)(program)
        self._require(self._gl("glGetProgramiv", None, UINT, UINT, POINTER), program, _LINKED)
        return int(program)

    def _require(self, query: Callable[..., None], name: int, what: int) -> None:
        value = ctypes.c_int(0)
        query(name, what, ctypes.addressof(value))
        if not value.value:
            raise EngineUnavailableError(f"{self.renderer_name} refuses the shaders")

    def _generated(self, function: str) -> int:
        name = UINT(0)
        self._gl(function, None, INT, POINTER)(1, ctypes.addressof(name))
        return name.value


@cache
def choose_rasterizer() -> Rasterize:
    """Returns OpenGL where a GPU draws, and draws the same; else the compiled software path."""
    try:
        found = OpenGlRasterizer(needs_gpu=True)
        if _draws_the_same(found.rasterize):
            logger.info("rasterizing by OpenGL", extra={"renderer": found.renderer_name})
            return found.rasterize
    except EngineUnavailableError as error:
        logger.debug("no OpenGL", extra={"cause": str(error)})
    return software.rasterize


def _draws_the_same(rasterize: Rasterize) -> bool:
    """Compares a few triangles, one before the other, with the software path."""
    rng, side = np.random.default_rng(0), 64
    points = rng.uniform(0, side, (30, 3)).astype(np.float32)
    corners = np.arange(30, dtype=np.int32).reshape(10, 3)
    faces = np.concatenate([corners, corners[:, ::-1]])
    ours, theirs = (draw(points, faces, side, side) for draw in (software.rasterize, rasterize))
    return bool((ours.face_index == theirs.face_index).mean() > 0.99)
