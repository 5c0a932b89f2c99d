"""Project files: read, compared and applied, never executed."""
