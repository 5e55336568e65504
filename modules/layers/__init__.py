"""Layers that several families share. They receive `ops` and `attention` from whoever builds them."""
