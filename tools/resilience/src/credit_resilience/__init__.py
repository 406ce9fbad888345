"""Attack the credit service over raw sockets and report how the server and its callers behave."""
