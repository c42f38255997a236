"""Names of our figures, in files and tables; a part such as `_medium` may follow each."""

from __future__ import annotations

KEYPOINT_AP = "keypoint_ap"
MASK_AP = "mask_ap_keypoint_persons"  # of persons with labelled keypoints alone
MASK_AP_ALL = "mask_ap_full"
ROWS = (KEYPOINT_AP, MASK_AP, MASK_AP_ALL)
