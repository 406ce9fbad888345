"""Every reason to reject a call because of load."""
