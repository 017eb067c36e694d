"""Templates that the official TypeScript packages register and that the service's own guide shows.

They are facts about what clients send, from the public repository of the TypeScript SDK, prefactordev/typescript-sdk on
GitHub; the file of each group stands before it.
"""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "packages/livekit/src/schema.ts": (
        "Session {{ status }}{% if conversation.userMessages %}: {{ conversation.userMessages }} user, "
        "{{ conversation.assistantMessages }} assistant{% endif %}{% if conversation.functionCalls %}, "
        "{{ conversation.functionCalls }} tool calls{% endif %}{% if metadata.closeReason %} ({{ "
        "metadata.closeReason }}){% endif %}",
        "{% if transcript %}User: {{ transcript }}{% else %}User turn{% endif %}{% if language %} ({{ "
        'language }}){% endif %}{% if status == "cancelled" %} -> cancelled{% endif %}',
        "{% if outputs.message.content %}Assistant: {{ outputs.message.content }}{% elsif "
        "outputs.message.textContent %}Assistant: {{ outputs.message.textContent }}{% elsif status == "
        '"cancelled" %}Assistant turn cancelled{% else %}Assistant turn {{ status }}{% endif %}',
        "Tool {{ outputs.name }}{% if status %} -> {{ status }}{% endif %}{% if isError %} (error){% endif %}",
        "LLM {{ modelName }}{% if metrics.totalTokens %}: {{ metrics.totalTokens }} tokens{% endif %}{% "
        "if status %} -> {{ status }}{% endif %}",
        "STT {{ modelName }}{% if metrics.audioDurationMs %}: {{ metrics.audioDurationMs }} ms audio{% "
        "endif %}{% if status %} -> {{ status }}{% endif %}",
        "TTS {{ modelName }}{% if metrics.charactersCount %}: {{ metrics.charactersCount }} chars{% "
        "endif %}{% if status %} -> {{ status }}{% endif %}",
        "State change{% if status %} -> {{ status }}{% endif %}",
        "LiveKit error{% if error.errorType %} {{ error.errorType }}{% endif %}{% if error.message %}: "
        "{{ error.message }}{% endif %}",
    ),
    "packages/openclaw-prefactor-plugin/src/agent.ts": (
        "{{ raw.content }}",
        "{{ toolName }}",
        '{{ text | default: "(no response)" }}',
        '{{ thinking | default: "(thinking)" }}',
        '{{ toolName | default: "read" }}: {{ input.file_path | default: input.path | default: "(unknown '
        'file)" }}{% if input.offset %}:{{ input.offset }}{% endif %}{% if input.limit %}-{{ '
        "input.offset | plus: input.limit }}{% endif %}",
        '{{ toolName | default: "write" }}: {{ input.path | default: "(unknown file)" }}',
        '{{ toolName | default: "edit" }}: {{ input.path | default: "(unknown file)" }}',
        '{{ toolName | default: "exec" }}: `{% assign cmd = input.command | default: "(no command)" %}{% '
        "if cmd.size > 50 %}{{ cmd | slice: 0, 50 }}...{% else %}{{ cmd }}{% endif %}`{% if "
        "input.workdir %} (in {{ input.workdir }}){% endif %}",
        '{{ toolName | default: "web_search" }}: "{{ input.query | default: "(empty query)" }}"{% if '
        "input.count %} (max {{ input.count }}){% endif %}{% if input.freshness %} [{{ input.freshness "
        "}}]{% endif %}",
        '{{ toolName | default: "web_fetch" }}: {% assign url = input.url | default: "(no URL)" %}{% if '
        "url.size > 60 %}{{ url | slice: 0, 60 }}...{% else %}{{ url }}{% endif %}{% if "
        "input.extractMode %} [{{ input.extractMode }}]{% endif %}",
        '{{ toolName | default: "browser" }}: {{ input.action | default: "(unknown action)" }}{% if '
        "input.url %}: {{ input.url }}{% endif %}{% if input.targetId %} (tab {{ input.targetId }}){% "
        "endif %}",
        "{% if output %}{{ output | size | default: 0 }} chars{% else %}(no output){% endif %}",
        "{% if output.exitCode == 0 %}exit 0{% elsif output.exitCode %}exit {{ output.exitCode }}{% else "
        "%}done{% endif %}",
        "{% if output.results %}{{ output.results | size | default: 0 }} results{% elsif output %}done{% "
        "else %}(no output){% endif %}",
        '{{ toolName | default: "(unknown)" }}',
        '{{ output | default: "(completed)" }}',
    ),
    "skills/write-span-summary-templates/references/template-examples.md": (
        "{{ model }}",
        "Called {{ model }} with {{ message_count }} messages; finished with {{ finish_reason }}.",
        "LLM {{ model }}{% if total_tokens %}: {{ total_tokens }} tokens{% endif %}{% if finish_reason "
        "%} -> {{ finish_reason }}{% endif %}",
        'LLM {{ inputs["ai.model.id"] }}{% if inputs["ai.model.provider"] %} ({{ '
        'inputs["ai.model.provider"] }}){% endif %}{% if outputs["ai.response.text"] %} -> {{ '
        'outputs["ai.response.text"] | truncate: 60 }}{% endif %}',
        'LLM {{ inputs["langchain.model.name"] }}{% if outputs.content %} -> {{ outputs.content | '
        "truncate: 60 }}{% endif %}",
        "Looked up order {{ order_id }}; status {{ status }}.",
        "Tool {{ tool_name }}{% if status %} -> {{ status }}{% endif %}{% if is_error %} (error){% endif %}",
        "Tool {{ inputs.toolName }}{% if inputs.input.expression %}: {{ inputs.input.expression }}{% "
        "endif %}{% if outputs.output %} -> {{ outputs.output | truncate: 60 }}{% endif %}",
        "Example root: {{ inputs.example }}",
        "Normalized {{ inputs.rawLength }} chars{% if result %} -> {{ result | truncate: 60 }}{% endif %}",
        "Summary {{ wordCount }} words{% if inputs.normalizedLength %}, {{ inputs.normalizedLength }} "
        "chars{% endif %}{% if preview %}: {{ preview | truncate: 60 }}{% endif %}",
        "User ({{ role }}): {{ content }}",
        "{{ content }}",
        "Session {{ status }}{% if conversation.userMessages %}: {{ conversation.userMessages }} user, "
        "{{ conversation.assistantMessages }} assistant{% endif %}{% if metadata.closeReason %} ({{ "
        "metadata.closeReason }}){% endif %}",
        "STT {{ model_name }}{% if metrics.audio_duration_ms %}: {{ metrics.audio_duration_ms }} ms "
        "audio{% endif %}{% if status %} -> {{ status }}{% endif %}",
        "TTS {{ model_name }}{% if metrics.characters_count %}: {{ metrics.characters_count }} chars{% "
        "endif %}{% if status %} -> {{ status }}{% endif %}",
        "{{ provider }} error{% if error.error_type %} {{ error.error_type }}{% endif %}{% if "
        "error.message %}: {{ error.message }}{% endif %}",
    ),
    "skills/write-span-summary-templates/SKILL.md": (
        'LLM {{ inputs["ai.model.id"] }}',
        "Tool {{ inputs.toolName }}{% if outputs.output %} -> {{ outputs.output | truncate: 60 }}{% endif %}",
        "Summary {{ wordCount }} words{% if preview %}: {{ preview | truncate: 60 }}{% endif %}",
        '{{ inputs["ai.model.id"] }}',
        "{{ conversation.userMessages }}",
        "{% if transcript %}User: {{ transcript }}{% else %}User turn{% endif %}",
        "{{ output | truncate: 60 }}",
    ),
}
