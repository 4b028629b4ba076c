"""The types of the api's replies, one module per noun. The api builds replies from them, and the client parses them."""
