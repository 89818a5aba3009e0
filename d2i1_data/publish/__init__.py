"""Publishing: datasets, pipelines, adapters and Spaces on the Hub."""
