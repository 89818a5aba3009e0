"""The dataset: samples, the schema of their columns, shards, and the files beside them."""
