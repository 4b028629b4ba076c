"""Requests and replies, one file per noun: camelCase on the wire, times in ISO 8601 UTC."""
