"""What the server does beside answering single prompts; `server` puts it together."""
