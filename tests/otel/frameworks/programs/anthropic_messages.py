"""One message."""

import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["MODEL"], api_key="x")
client.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=[{"role": "user", "content": "hi"}])
