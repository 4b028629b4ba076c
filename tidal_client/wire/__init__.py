"""What the api sends, typed: one module per noun. The api builds its replies of these types, the client reads them."""
