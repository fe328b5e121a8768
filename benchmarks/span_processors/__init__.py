"""What does each span processor cost the caller, what in all, and how fast does it drain?"""
