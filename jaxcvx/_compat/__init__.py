"""The only place that knows of dependencies that may go away."""
