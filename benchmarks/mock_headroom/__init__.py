"""How much more can the mock serve than the proxy can ask of it?"""
