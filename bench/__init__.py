"""The benchmark: measures the platform against what it could at best be, side by side."""
