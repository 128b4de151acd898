"""The workplace in a real browser; `make test-browser` runs these."""
