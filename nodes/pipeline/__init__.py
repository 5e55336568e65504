"""What nodes do: stages and host put together, callable twice in one graph or one node. Imports no node file."""
