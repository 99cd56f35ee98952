"""An open and closed load generator for a served editor."""
