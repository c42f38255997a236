"""Datasets looked at before they are used: counts, faults, a sheet of samples."""
