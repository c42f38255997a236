"""The ROS 2 side: one lifecycle node that feeds camera images to kdc_core."""
