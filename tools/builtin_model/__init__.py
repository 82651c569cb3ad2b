# SPDX-License-Identifier: Apache-2.0
"""Makes ``styleavatar_core/face3d/builtin_model.safetensors`` from landmarks of many people.

``topology`` makes face and eyeballs, ``head_shell`` what lies around them, ``mouth`` what lies
behind the lips, ``prior`` the hand-made meaning of the 52 expressions, ``learning`` fits face and
expressions to landmarks, ``appearance`` colours and unwraps the result.
"""
