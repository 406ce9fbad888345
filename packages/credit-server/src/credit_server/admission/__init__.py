"""Decides whether calls are served now. Knows neither gRPC nor credits."""
