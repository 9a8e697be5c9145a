"""What a bridge between machines stands on: tokens, sealed bodies, and the seam to the engine that carries them."""
