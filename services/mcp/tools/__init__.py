"""The tools, one module per subject. A tool calls the api through `services.mcp.access` and returns a summary."""
