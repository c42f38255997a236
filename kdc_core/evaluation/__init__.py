"""Scoring against annotations, the paper's protocols, ablations, reports."""
