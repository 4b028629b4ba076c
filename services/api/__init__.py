"""The HTTP service: REST under `/api`, server-sent events, health and metrics endpoints.

`python -m services.api` runs it. A route parses the request, calls one function in `operations/` and returns the result
of that function. `schemas/` defines the request bodies. The service never imports torch and never runs a job itself.
"""
