import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_RAW_RGB: _ClassVar[ImageFormat]
    IMAGE_FORMAT_H264: _ClassVar[ImageFormat]

class FrameMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_MODE_UNSPECIFIED: _ClassVar[FrameMode]
    FRAME_MODE_LATEST_FRAME: _ClassVar[FrameMode]
    FRAME_MODE_EVERY_FRAME: _ClassVar[FrameMode]
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_RAW_RGB: ImageFormat
IMAGE_FORMAT_H264: ImageFormat
FRAME_MODE_UNSPECIFIED: FrameMode
FRAME_MODE_LATEST_FRAME: FrameMode
FRAME_MODE_EVERY_FRAME: FrameMode

class Image(_message.Message):
    __slots__ = ("format", "width_px", "height_px", "data")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    format: ImageFormat
    width_px: int
    height_px: int
    data: bytes
    def __init__(self, format: _Optional[_Union[ImageFormat, str]] = ..., width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class VideoFrame(_message.Message):
    __slots__ = ("frame_index", "capture_offset", "image")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    capture_offset: _duration_pb2.Duration
    image: Image
    def __init__(self, frame_index: _Optional[int] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class FrameFailure(_message.Message):
    __slots__ = ("frame_index", "reason", "message", "capture_offset", "dropped")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    reason: str
    message: str
    capture_offset: _duration_pb2.Duration
    dropped: DroppedFrames
    def __init__(self, frame_index: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., dropped: _Optional[_Union[DroppedFrames, _Mapping]] = ...) -> None: ...

class DroppedFrames(_message.Message):
    __slots__ = ("superseded_count", "worker_lost_count", "slow_reader_count", "late_count")
    SUPERSEDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKER_LOST_COUNT_FIELD_NUMBER: _ClassVar[int]
    SLOW_READER_COUNT_FIELD_NUMBER: _ClassVar[int]
    LATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    superseded_count: int
    worker_lost_count: int
    slow_reader_count: int
    late_count: int
    def __init__(self, superseded_count: _Optional[int] = ..., worker_lost_count: _Optional[int] = ..., slow_reader_count: _Optional[int] = ..., late_count: _Optional[int] = ...) -> None: ...
