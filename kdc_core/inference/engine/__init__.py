"""Engines: what TensorRT makes of a program for one GPU, built in a child process and kept."""
