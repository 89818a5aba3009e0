"""Creation: theta_C writes datasets, from the plan to the last shard."""
