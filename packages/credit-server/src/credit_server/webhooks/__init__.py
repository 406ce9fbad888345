"""Webhooks: send the events of alerts to the addresses of apps, over HTTP."""
