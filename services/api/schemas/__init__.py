"""Request bodies, one file per resource: names are camelCase, times are ISO 8601 in UTC."""
