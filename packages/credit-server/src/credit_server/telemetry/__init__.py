"""What the operator is told of a running server: metrics and traces."""
