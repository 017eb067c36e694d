"""A prediction, and a call of the model."""

import os

import dspy

model = dspy.LM("openai/dspy", api_base=f"{os.environ['MODEL']}/v1", api_key="x", cache=False)
dspy.configure(lm=model)
dspy.Predict("question -> answer")(question="Rome?")
model("Rome?")
