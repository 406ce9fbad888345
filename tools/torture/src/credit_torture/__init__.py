"""Kill, stop and disconnect real servers and mongods under load, and check every answer."""
