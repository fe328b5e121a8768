"""What becomes of the records when the proxy is killed or the collector fails?"""
