"""People in pictures: 17 keypoints and one mask each, by keypoints as dynamic centroids."""

__version__ = "0.1.0"
