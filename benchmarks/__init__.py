"""Our speed as a ratio: the same work done by us and by what a user would pick instead."""
