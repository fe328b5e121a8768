"""The net around the proxy: every request that may make an engine work is seen where it comes in and goes out."""
