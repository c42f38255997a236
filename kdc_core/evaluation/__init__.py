"""Scoring against annotations with pycocotools."""
