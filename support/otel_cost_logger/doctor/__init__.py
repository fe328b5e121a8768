"""Is everything there that the plugin needs, and does it do what it should?"""
