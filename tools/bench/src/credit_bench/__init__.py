"""Benchmarks the credit service side by side with a plain implementation of it."""
