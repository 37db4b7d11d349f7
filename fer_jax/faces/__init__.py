"""Where faces are in pictures, with five points each, and faces brought upright to one place."""
