# SPDX-License-Identifier: Apache-2.0
"""A context of OpenGL 3.3 by EGL, without a window, a package or GL headers.

libEGL is opened by ctypes where the system has it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from styleavatar_core.errors import EngineUnavailableError

UINT, INT, POINTER = ctypes.c_uint, ctypes.c_int, ctypes.c_void_p

# Names of EGL, as its registry numbers them.
_SURFACELESS_MESA, _PLATFORM_DEVICE = 0x31DD, 0x313F
_OPENGL_API, _NONE, _OPENGL_BIT, _RENDERABLE, _SURFACE = 0x30A2, 0x3038, 8, 0x3040, 0x3033
_VERSION_3_3_CORE = (0x3098, 3, 0x30FB, 3, 0x30FD, 1, _NONE)
_EXTENSIONS, _DRAWS_ON_CPU = 0x3055, b"EGL_MESA_device_software"
_DEVICE_LIMIT = 16


class EglContext:
    """One context; current in a thread only while it is used.

    Args:
        needs_gpu: Whether drivers that draw on the CPU are left out, before they are even loaded.

    Raises:
        EngineUnavailableError: There is no libEGL, or it gives no context of OpenGL 3.3.
    """

    def __init__(self, *, needs_gpu: bool = False) -> None:
        try:
            self._egl = ctypes.CDLL("libEGL.so.1")
        except OSError as error:
            raise EngineUnavailableError(f"OpenGL cannot be used: {error}") from error
        self._address = self._egl_call("eglGetProcAddress", POINTER, ctypes.c_char_p)
        self._functions: dict[str, Callable[..., Any]] = {}
        self._display, self._context = self._open(self._gpus() if needs_gpu else self._candidates())

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in this thread for as long as the block runs."""
        make_current = self._egl_call("eglMakeCurrent", UINT, *[POINTER] * 4)
        if not make_current(self._display, None, None, self._context):
            raise EngineUnavailableError("The OpenGL context is in use by another thread.")
        try:
            yield
        finally:
            make_current(self._display, None, None, None)

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """Returns a function of OpenGL; the first call says its types."""
        found = self._functions.get(name)
        if found is None:
            found = ctypes.CFUNCTYPE(result, *arguments)(self._address(name.encode()))
            self._functions[name] = found
        return found

    def _open(self, candidates: list[tuple[int, Any]]) -> tuple[Any, Any]:
        platform = self._address(b"eglGetPlatformDisplayEXT")
        prototype = ctypes.CFUNCTYPE(POINTER, UINT, POINTER, POINTER)
        initialize = self._egl_call("eglInitialize", UINT, POINTER, POINTER, POINTER)
        for kind, device in candidates if platform else []:
            display = prototype(platform)(kind, device, None)
            if not display or not initialize(display, None, None):
                continue
            self._egl_call("eglBindAPI", UINT, UINT)(_OPENGL_API)
            wanted = (INT * 5)(_RENDERABLE, _OPENGL_BIT, _SURFACE, 0, _NONE)
            config, count = POINTER(), INT(0)
            choose = self._egl_call("eglChooseConfig", UINT, *[POINTER] * 3, INT, POINTER)
            choose(display, wanted, ctypes.addressof(config), 1, ctypes.addressof(count))
            create = self._egl_call("eglCreateContext", POINTER, *[POINTER] * 4)
            version = (INT * len(_VERSION_3_3_CORE))(*_VERSION_3_3_CORE)
            context = create(display, config, None, version) if count.value else None
            if context:
                return display, context
        raise EngineUnavailableError("EGL gives no context of OpenGL 3.3 on this machine.")

    def _candidates(self) -> list[tuple[int, Any]]:
        """Returns platforms and devices to try: GPUs first, then Mesa on the CPU."""
        return [*self._gpus(), (_SURFACELESS_MESA, None)]

    def _gpus(self) -> list[tuple[int, Any]]:
        query = self._address(b"eglQueryDevicesEXT")
        describe = self._address(b"eglQueryDeviceStringEXT")
        if not query or not describe:
            return []
        devices, count = (POINTER * _DEVICE_LIMIT)(), INT(0)
        ctypes.CFUNCTYPE(UINT, INT, POINTER, POINTER)(query)(
            _DEVICE_LIMIT, ctypes.addressof(devices), ctypes.addressof(count)
        )
        extensions = ctypes.CFUNCTYPE(ctypes.c_char_p, POINTER, INT)(describe)
        return [
            (_PLATFORM_DEVICE, devices[index])
            for index in range(count.value)
            if _DRAWS_ON_CPU not in (extensions(devices[index], _EXTENSIONS) or b"")
        ]

    def _egl_call(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = getattr(self._egl, name)
        function.restype, function.argtypes = result, arguments
        return function
