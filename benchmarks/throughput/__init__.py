"""How many tokens per second does the engine give, asked directly and through the proxy?"""
