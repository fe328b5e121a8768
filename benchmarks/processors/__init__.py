"""What does each span processor cost, what does it lose, and whom does it hold up when the collector is dead?"""
