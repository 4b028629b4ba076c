"""The HTTP service: REST under `/api`, server-sent events, health and metrics endpoints.

`python -m services.api` runs it. Routes parse, call one operation and return; `operations/` holds what they do,
`schemas/` what goes over the wire, one file per noun. It never imports torch and never runs a job itself.
"""
