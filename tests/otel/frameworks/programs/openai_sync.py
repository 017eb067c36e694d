"""Chat completions, a stream, a response."""

import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['MODEL']}/v1", api_key="x")
asked = [{"role": "user", "content": "hi"}]
client.chat.completions.create(model="m", messages=asked)
for _ in client.chat.completions.create(model="m", messages=asked, stream=True, stream_options={"include_usage": True}):
    pass
client.responses.create(model="m", input="hi")
