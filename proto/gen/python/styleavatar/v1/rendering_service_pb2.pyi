import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from styleavatar.v1 import face_pb2 as _face_pb2
from styleavatar.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Driver(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRIVER_UNSPECIFIED: _ClassVar[Driver]
    DRIVER_SAME_PERSON: _ClassVar[Driver]
    DRIVER_OTHER_PERSON: _ClassVar[Driver]

class Background(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BACKGROUND_UNSPECIFIED: _ClassVar[Background]
    BACKGROUND_ORIGINAL: _ClassVar[Background]
    BACKGROUND_TRANSPARENT: _ClassVar[Background]
    BACKGROUND_GREEN_SCREEN: _ClassVar[Background]
    BACKGROUND_IMAGE: _ClassVar[Background]
DRIVER_UNSPECIFIED: Driver
DRIVER_SAME_PERSON: Driver
DRIVER_OTHER_PERSON: Driver
BACKGROUND_UNSPECIFIED: Background
BACKGROUND_ORIGINAL: Background
BACKGROUND_TRANSPARENT: Background
BACKGROUND_GREEN_SCREEN: Background
BACKGROUND_IMAGE: Background

class ListAvatarsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAvatarsResponse(_message.Message):
    __slots__ = ("avatars",)
    AVATARS_FIELD_NUMBER: _ClassVar[int]
    avatars: _containers.RepeatedCompositeFieldContainer[Avatar]
    def __init__(self, avatars: _Optional[_Iterable[_Union[Avatar, _Mapping]]] = ...) -> None: ...

class GetAvatarRequest(_message.Message):
    __slots__ = ("avatar_id",)
    AVATAR_ID_FIELD_NUMBER: _ClassVar[int]
    avatar_id: str
    def __init__(self, avatar_id: _Optional[str] = ...) -> None: ...

class GetAvatarResponse(_message.Message):
    __slots__ = ("avatar",)
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    avatar: Avatar
    def __init__(self, avatar: _Optional[_Union[Avatar, _Mapping]] = ...) -> None: ...

class LoadAvatarRequest(_message.Message):
    __slots__ = ("avatar_id",)
    AVATAR_ID_FIELD_NUMBER: _ClassVar[int]
    avatar_id: str
    def __init__(self, avatar_id: _Optional[str] = ...) -> None: ...

class LoadAvatarResponse(_message.Message):
    __slots__ = ("avatar",)
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    avatar: Avatar
    def __init__(self, avatar: _Optional[_Union[Avatar, _Mapping]] = ...) -> None: ...

class RenderFrameRequest(_message.Message):
    __slots__ = ("config", "parameters")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    config: RenderConfig
    parameters: _face_pb2.FaceParameters
    def __init__(self, config: _Optional[_Union[RenderConfig, _Mapping]] = ..., parameters: _Optional[_Union[_face_pb2.FaceParameters, _Mapping]] = ...) -> None: ...

class RenderFrameResponse(_message.Message):
    __slots__ = ("frame",)
    FRAME_FIELD_NUMBER: _ClassVar[int]
    frame: RenderedFrame
    def __init__(self, frame: _Optional[_Union[RenderedFrame, _Mapping]] = ...) -> None: ...

class StreamFramesRequest(_message.Message):
    __slots__ = ("config", "parameters", "set_neutral", "hold")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SET_NEUTRAL_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    config: RenderConfig
    parameters: _face_pb2.FaceParameters
    set_neutral: SetNeutral
    hold: HoldFrame
    def __init__(self, config: _Optional[_Union[RenderConfig, _Mapping]] = ..., parameters: _Optional[_Union[_face_pb2.FaceParameters, _Mapping]] = ..., set_neutral: _Optional[_Union[SetNeutral, _Mapping]] = ..., hold: _Optional[_Union[HoldFrame, _Mapping]] = ...) -> None: ...

class StreamFramesResponse(_message.Message):
    __slots__ = ("config", "frame", "failure")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    config: RenderConfig
    frame: RenderedFrame
    failure: _image_pb2.FrameFailure
    def __init__(self, config: _Optional[_Union[RenderConfig, _Mapping]] = ..., frame: _Optional[_Union[RenderedFrame, _Mapping]] = ..., failure: _Optional[_Union[_image_pb2.FrameFailure, _Mapping]] = ...) -> None: ...

class RenderConfig(_message.Message):
    __slots__ = ("avatar_id", "image_format", "jpeg_quality", "image_size_px", "frame_mode", "driver", "background", "background_image", "crop", "frame_deadline", "frames_per_second", "bits_per_second", "gains", "visible_label", "live")
    AVATAR_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    JPEG_QUALITY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    FRAME_MODE_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_IMAGE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    FRAME_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    GAINS_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_LABEL_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    avatar_id: str
    image_format: _image_pb2.ImageFormat
    jpeg_quality: int
    image_size_px: int
    frame_mode: _image_pb2.FrameMode
    driver: Driver
    background: Background
    background_image: _image_pb2.Image
    crop: Region
    frame_deadline: _duration_pb2.Duration
    frames_per_second: int
    bits_per_second: int
    gains: DriverGains
    visible_label: bool
    live: bool
    def __init__(self, avatar_id: _Optional[str] = ..., image_format: _Optional[_Union[_image_pb2.ImageFormat, str]] = ..., jpeg_quality: _Optional[int] = ..., image_size_px: _Optional[int] = ..., frame_mode: _Optional[_Union[_image_pb2.FrameMode, str]] = ..., driver: _Optional[_Union[Driver, str]] = ..., background: _Optional[_Union[Background, str]] = ..., background_image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., crop: _Optional[_Union[Region, _Mapping]] = ..., frame_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., frames_per_second: _Optional[int] = ..., bits_per_second: _Optional[int] = ..., gains: _Optional[_Union[DriverGains, _Mapping]] = ..., visible_label: _Optional[bool] = ..., live: _Optional[bool] = ...) -> None: ...

class DriverGains(_message.Message):
    __slots__ = ("gaze", "blink", "mouth", "head")
    GAZE_FIELD_NUMBER: _ClassVar[int]
    BLINK_FIELD_NUMBER: _ClassVar[int]
    MOUTH_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    gaze: float
    blink: float
    mouth: float
    head: float
    def __init__(self, gaze: _Optional[float] = ..., blink: _Optional[float] = ..., mouth: _Optional[float] = ..., head: _Optional[float] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("left", "top", "side")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    side: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., side: _Optional[float] = ...) -> None: ...

class SetNeutral(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HoldFrame(_message.Message):
    __slots__ = ("frame_index", "capture_offset")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    capture_offset: _duration_pb2.Duration
    def __init__(self, frame_index: _Optional[int] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RenderedFrame(_message.Message):
    __slots__ = ("frame_index", "capture_offset", "image", "synthetic", "clamped", "held", "dropped", "stage_durations", "going_away", "key_frame")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SYNTHETIC_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    STAGE_DURATIONS_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    capture_offset: _duration_pb2.Duration
    image: _image_pb2.Image
    synthetic: bool
    clamped: bool
    held: bool
    dropped: _image_pb2.DroppedFrames
    stage_durations: StageDurations
    going_away: bool
    key_frame: bool
    def __init__(self, frame_index: _Optional[int] = ..., capture_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., synthetic: _Optional[bool] = ..., clamped: _Optional[bool] = ..., held: _Optional[bool] = ..., dropped: _Optional[_Union[_image_pb2.DroppedFrames, _Mapping]] = ..., stage_durations: _Optional[_Union[StageDurations, _Mapping]] = ..., going_away: _Optional[bool] = ..., key_frame: _Optional[bool] = ...) -> None: ...

class StageDurations(_message.Message):
    __slots__ = ("decoding", "tracking", "queue", "conditioning", "network", "encoding", "total")
    DECODING_FIELD_NUMBER: _ClassVar[int]
    TRACKING_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONING_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    decoding: _duration_pb2.Duration
    tracking: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    conditioning: _duration_pb2.Duration
    network: _duration_pb2.Duration
    encoding: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, decoding: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tracking: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., conditioning: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., network: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., encoding: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Avatar(_message.Message):
    __slots__ = ("avatar_id", "preset", "image_size_px", "loaded", "face_identity")
    AVATAR_ID_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    FACE_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    avatar_id: str
    preset: str
    image_size_px: int
    loaded: bool
    face_identity: _face_pb2.FaceIdentity
    def __init__(self, avatar_id: _Optional[str] = ..., preset: _Optional[str] = ..., image_size_px: _Optional[int] = ..., loaded: _Optional[bool] = ..., face_identity: _Optional[_Union[_face_pb2.FaceIdentity, _Mapping]] = ...) -> None: ...
