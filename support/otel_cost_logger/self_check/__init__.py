"""Does this LiteLLM, with this OpenTelemetry, still give the plugin what its records are made of?"""
