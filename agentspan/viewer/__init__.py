"""The content of the viewer's pages: data, conversation, list, files. The web server is in `agentspan.serve`."""
