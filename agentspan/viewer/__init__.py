"""What a run looks like as a page: its data, its conversation, its assets. No web framework; `serve` and export show it."""
