"""Creation: write datasets, from the plan to the last shard, and verify them."""
