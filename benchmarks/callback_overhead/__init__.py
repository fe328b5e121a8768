"""What does a cost callback add to an LLM call?"""
