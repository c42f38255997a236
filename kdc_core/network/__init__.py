"""The network: PoseNet (MoveNet or a dilated ResNet) and SegNet."""
