"""The benchmark: measures the platform against the best it could be, side by side."""
