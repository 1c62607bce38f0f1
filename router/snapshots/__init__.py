"""What a policy has learned, kept in files and begun from them."""
