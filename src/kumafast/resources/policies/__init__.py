"""One policy, one file: its specification, its validation, its merge rule."""
