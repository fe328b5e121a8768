"""Does everything that a measurement on a GPU needs work on this host?"""
