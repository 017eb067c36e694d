"""What others build on, frozen in files: the OpenAPI document, the server's answers, `--help`, the public names.

A change of one of them is meant, or a mistake. `AGENTSPAN_TEST_FREEZE=1 python -m pytest tests/frozen` writes the files
anew; what the commit then shows is what users will notice.
"""
