import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from styleavatar.v1 import face_pb2 as _face_pb2
from styleavatar.v1 import image_pb2 as _image_pb2
from styleavatar.v1 import rendering_service_pb2 as _rendering_service_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrackRequest(_message.Message):
    __slots__ = ("config", "frame")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    config: TrackConfig
    frame: _image_pb2.VideoFrame
    def __init__(self, config: _Optional[_Union[TrackConfig, _Mapping]] = ..., frame: _Optional[_Union[_image_pb2.VideoFrame, _Mapping]] = ...) -> None: ...

class TrackResponse(_message.Message):
    __slots__ = ("config", "face", "no_face", "failure")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FACE_FIELD_NUMBER: _ClassVar[int]
    NO_FACE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    config: TrackConfig
    face: TrackedFace
    no_face: NoFace
    failure: _image_pb2.FrameFailure
    def __init__(self, config: _Optional[_Union[TrackConfig, _Mapping]] = ..., face: _Optional[_Union[TrackedFace, _Mapping]] = ..., no_face: _Optional[_Union[NoFace, _Mapping]] = ..., failure: _Optional[_Union[_image_pb2.FrameFailure, _Mapping]] = ...) -> None: ...

class ReenactRequest(_message.Message):
    __slots__ = ("config", "frame", "set_neutral")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SET_NEUTRAL_FIELD_NUMBER: _ClassVar[int]
    config: ReenactConfig
    frame: _image_pb2.VideoFrame
    set_neutral: _rendering_service_pb2.SetNeutral
    def __init__(self, config: _Optional[_Union[ReenactConfig, _Mapping]] = ..., frame: _Optional[_Union[_image_pb2.VideoFrame, _Mapping]] = ..., set_neutral: _Optional[_Union[_rendering_service_pb2.SetNeutral, _Mapping]] = ...) -> None: ...

class ReenactResponse(_message.Message):
    __slots__ = ("config", "frame", "failure")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    config: ReenactConfig
    frame: _rendering_service_pb2.RenderedFrame
    failure: _image_pb2.FrameFailure
    def __init__(self, config: _Optional[_Union[ReenactConfig, _Mapping]] = ..., frame: _Optional[_Union[_rendering_service_pb2.RenderedFrame, _Mapping]] = ..., failure: _Optional[_Union[_image_pb2.FrameFailure, _Mapping]] = ...) -> None: ...

class TrackConfig(_message.Message):
    __slots__ = ("frame_mode", "face_identity", "model_id")
    FRAME_MODE_FIELD_NUMBER: _ClassVar[int]
    FACE_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    frame_mode: _image_pb2.FrameMode
    face_identity: _face_pb2.FaceIdentity
    model_id: str
    def __init__(self, frame_mode: _Optional[_Union[_image_pb2.FrameMode, str]] = ..., face_identity: _Optional[_Union[_face_pb2.FaceIdentity, _Mapping]] = ..., model_id: _Optional[str] = ...) -> None: ...

class ReenactConfig(_message.Message):
    __slots__ = ("rendering",)
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    rendering: _rendering_service_pb2.RenderConfig
    def __init__(self, rendering: _Optional[_Union[_rendering_service_pb2.RenderConfig, _Mapping]] = ...) -> None: ...

class TrackedFace(_message.Message):
    __slots__ = ("parameters", "dropped")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    parameters: _face_pb2.FaceParameters
    dropped: _image_pb2.DroppedFrames
    def __init__(self, parameters: _Optional[_Union[_face_pb2.FaceParameters, _Mapping]] = ..., dropped: _Optional[_Union[_image_pb2.DroppedFrames, _Mapping]] = ...) -> None: ...

class NoFace(_message.Message):
    __slots__ = ("frame_index", "dropped", "capture_offset")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    dropped: _image_pb2.DroppedFrames
    capture_offset: _duration_pb2.Duration
    def __init__(self, frame_index: _Optional[int] = ..., dropped: _Optional[_Union[_image_pb2.DroppedFrames, _Mapping]] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
