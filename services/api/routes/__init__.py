"""The routers, one file per resource. A route parses the request, calls one operation and returns its result."""
