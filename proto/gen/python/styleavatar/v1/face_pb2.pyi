import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FaceParameters(_message.Message):
    __slots__ = ("frame_index", "capture_offset", "model_id", "rotation", "translation", "scale", "expression", "left_eye_rotation", "right_eye_rotation", "confidence", "person_index")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ROTATION_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    LEFT_EYE_ROTATION_FIELD_NUMBER: _ClassVar[int]
    RIGHT_EYE_ROTATION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PERSON_INDEX_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    capture_offset: _duration_pb2.Duration
    model_id: str
    rotation: Quaternion
    translation: Vector3
    scale: float
    expression: _containers.RepeatedScalarFieldContainer[float]
    left_eye_rotation: EyeRotation
    right_eye_rotation: EyeRotation
    confidence: float
    person_index: int
    def __init__(self, frame_index: _Optional[int] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., model_id: _Optional[str] = ..., rotation: _Optional[_Union[Quaternion, _Mapping]] = ..., translation: _Optional[_Union[Vector3, _Mapping]] = ..., scale: _Optional[float] = ..., expression: _Optional[_Iterable[float]] = ..., left_eye_rotation: _Optional[_Union[EyeRotation, _Mapping]] = ..., right_eye_rotation: _Optional[_Union[EyeRotation, _Mapping]] = ..., confidence: _Optional[float] = ..., person_index: _Optional[int] = ...) -> None: ...

class FaceIdentity(_message.Message):
    __slots__ = ("model_id", "identity", "texture")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TEXTURE_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    identity: _containers.RepeatedScalarFieldContainer[float]
    texture: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model_id: _Optional[str] = ..., identity: _Optional[_Iterable[float]] = ..., texture: _Optional[_Iterable[float]] = ...) -> None: ...

class Quaternion(_message.Message):
    __slots__ = ("w", "x", "y", "z")
    W_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    w: float
    x: float
    y: float
    z: float
    def __init__(self, w: _Optional[float] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class Vector3(_message.Message):
    __slots__ = ("x", "y", "z")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    z: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class EyeRotation(_message.Message):
    __slots__ = ("pitch_rad", "yaw_rad")
    PITCH_RAD_FIELD_NUMBER: _ClassVar[int]
    YAW_RAD_FIELD_NUMBER: _ClassVar[int]
    pitch_rad: float
    yaw_rad: float
    def __init__(self, pitch_rad: _Optional[float] = ..., yaw_rad: _Optional[float] = ...) -> None: ...
