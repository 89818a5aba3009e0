"""The dataset: samples, their columns, their shards, and the files beside these."""
