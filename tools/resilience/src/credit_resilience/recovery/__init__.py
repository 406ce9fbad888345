"""Break a server's store, or the server itself, and measure how long callers wait."""
