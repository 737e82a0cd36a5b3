"""How the built-in model `mini` was made, and how its model card was measured; `make mini` runs it again."""
