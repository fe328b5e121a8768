"""How many spans does each span processor lose when its process or its collector fails, or a burst is too large?"""
