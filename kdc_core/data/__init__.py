"""Annotated images: reading, augmenting."""
