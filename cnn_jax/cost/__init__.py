"""What models and runs cost: counted, estimated, or read from the compiled step."""
