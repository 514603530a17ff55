"""From an uploaded package to a function that can be invoked, and back."""
