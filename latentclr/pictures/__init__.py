"""What people look at: grids, walks, curves and heat-maps."""
