"""What a run looks like as a page: its data, its conversation, its files. Without a web framework: `serve` has that."""
