"""Everything that knows torch: the base, the networks, their objectives, optimisers and training, the mixture."""
