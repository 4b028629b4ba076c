"""The MCP server: lets programs that act for a language model use Tidal. `docs/mcp.md` is the guide."""
