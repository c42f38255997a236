"""One file a command: its options, one call, and what it prints.

Shared by several: `options.py`, `outputs.py`, `printing.py`, `models.py`, `viewing.py`.
"""
