"""A stand-in for the few names of ``launch_ros`` that kdc.launch.py uses; see stub/launch."""
