# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's 478 landmarks by the part of the face that they outline.

Left and right are the subject's; lists of the two sides name mirrored points in the same order.
"""

from __future__ import annotations

LANDMARK_COUNT = 478
FACE_LANDMARK_COUNT = 468

# Lids run from the outer to the inner corner, corners excluded.
LEFT_UPPER_LID = (466, 388, 387, 386, 385, 384, 398)
LEFT_LOWER_LID = (249, 390, 373, 374, 380, 381, 382)
RIGHT_UPPER_LID = (246, 161, 160, 159, 158, 157, 173)
RIGHT_LOWER_LID = (7, 163, 144, 145, 153, 154, 155)
LEFT_EYE_CORNERS = (263, 362)
RIGHT_EYE_CORNERS = (33, 133)
LEFT_EYE = LEFT_EYE_CORNERS + LEFT_UPPER_LID + LEFT_LOWER_LID
RIGHT_EYE = RIGHT_EYE_CORNERS + RIGHT_UPPER_LID + RIGHT_LOWER_LID
LIDS = LEFT_EYE + RIGHT_EYE

# Center, then the four points of the iris border.
LEFT_IRIS = (473, 474, 475, 476, 477)
RIGHT_IRIS = (468, 469, 470, 471, 472)

# Lips run from the right to the left corner; corners are 61 and 291 (outer), 78 and 308 (inner).
UPPER_OUTER_LIP = (185, 40, 39, 37, 0, 267, 269, 270, 409)
LOWER_OUTER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
UPPER_INNER_LIP = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_INNER_LIP = (95, 88, 178, 87, 14, 317, 402, 318, 324)
LIP_CORNERS = (61, 291, 78, 308)
LIPS = LIP_CORNERS + UPPER_OUTER_LIP + LOWER_OUTER_LIP + UPPER_INNER_LIP + LOWER_INNER_LIP

LEFT_BROW = (336, 296, 334, 293, 300, 285, 295, 282, 283, 276)
RIGHT_BROW = (107, 66, 105, 63, 70, 55, 65, 52, 53, 46)

# What lies above the brows, often under hair.
FOREHEAD = (
    10, 151, 108, 109, 69, 67, 104, 103, 68, 54, 337, 338, 299, 297, 333, 332, 298, 284,
)  # fmt: skip

# Ridge, tip and wings.
NOSE = (6, 197, 195, 5, 4, 1, 2, 420, 360, 344, 278, 198, 131, 115, 48)

# Border of the face: from the top of the forehead by the subject's left to the chin and back.
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
