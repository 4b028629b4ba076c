"""The types of the api's replies, one module per kind of object.

The api builds replies from these types, and the client parses them.
"""
