"""The network: PoseNet (MoveNet's trunk and heads), SegNet, and both together."""
