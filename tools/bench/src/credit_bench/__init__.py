"""Measures the credit service side by side with what one would write instead."""
