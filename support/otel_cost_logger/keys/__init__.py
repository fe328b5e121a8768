"""The tenants' API keys: a file of hashes, and who may change it. Nothing here imports LiteLLM."""
