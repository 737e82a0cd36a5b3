"""What `injection` shows."""
