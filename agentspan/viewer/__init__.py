"""The content of the viewer's pages: data, conversation, list, files. No web framework: that is in `serve`."""
