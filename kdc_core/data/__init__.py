"""Annotated pictures: reading, augmenting."""
