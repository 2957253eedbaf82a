"""The self-service API, over HTTP and by its rules."""
