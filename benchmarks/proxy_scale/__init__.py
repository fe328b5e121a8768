"""How many requests per second do several workers of one proxy answer, with and without the callback?"""
