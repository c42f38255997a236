"""Runtimes: what executes a program. Each is one file that imports its library on use."""
