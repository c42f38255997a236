"""What a person sees: overlays, people as JSON, progress."""
