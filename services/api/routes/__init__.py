"""Routers, one file per noun: parse, call one operation, return."""
