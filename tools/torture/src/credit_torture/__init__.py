"""Kill, stop and cut real servers and mongods under load, and check every answer."""
