"""What does a dead collector do to the latency of requests, and to the proxy's liveness probe?"""
