"""What is measured in pictures, and what directions do to it."""
