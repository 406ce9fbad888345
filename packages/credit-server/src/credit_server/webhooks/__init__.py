"""Webhooks: send the events of alerts to the URLs of apps, over HTTP."""
