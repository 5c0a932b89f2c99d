"""What project files have to keep to beyond their form, kind by kind."""
