"""Two examples of each command, as its help prints them. A test parses them all, and runs what it can."""

EXAMPLES = {
    "overview": (
        ("the last week", "overview --since 7d"),
        ("by a score", "overview --outcome 'reward>=1'"),
    ),
    "runs": (
        ("the failed runs of the last day", "runs --failed --since 1d"),
        ("the ten runs that cost most", "runs --sort cost -n 10"),
    ),
    "show": (
        ("the latest run", "show -"),
        ("its step 12, in full", "show -#12"),
    ),
    "search": (
        ("the steps that have both words", "search timeout booking"),
        ("a phrase, in the latest run", "search '\"read timed out\"' --run -"),
    ),
    "session": (
        ("the runs of one conversation", "session chat-7"),
        ("those that failed", "session chat-7 --failed"),
    ),
    "cost": (
        ("by model, in the last month", "cost --since 30d"),
        ("prompt by prompt", "cost --by prompt"),
    ),
    "stats": (
        ("all runs of the last week", "stats --since 7d"),
        ("an agent, version by version", "stats --agent researcher --by version"),
    ),
    "sql": (
        ("the longest step, in ms", 'sql "select max(duration_ms) from spans"'),
        ("the names of all runs' agents", 'sql "select distinct agent from runs"'),
    ),
    "open": (
        ("the list of all runs", "open"),
        ("the latest run", "open -"),
    ),
    "why": (
        ("what failed in the last week", "why --since 7d"),
        ("why the latest run failed", "why -"),
    ),
    "diff": (
        ("two versions of an agent", "diff researcher@1.1 researcher@1.2"),
        ("what came into a model call", "diff -#2 --context"),
    ),
    "versions": (
        ("the versions of an agent", "versions researcher"),
        ("what became worse, by a score", "versions researcher --outcome 'reward>=1'"),
    ),
    "check": (
        ("all runs, as pyproject.toml says", "check"),
        ("one version, with a report for CI", "check version=1.2 --junit report.xml"),
    ),
    "evaluate": (
        ("cases through a function", "evaluate app:agent --cases c.jsonl"),
        ("each case three times", "evaluate app:agent --cases c.jsonl --trials 3"),
    ),
    "score": (
        ("the latest run was good", "score - --mark good"),
        ("a number for its step 12", "score -#12 relevance 0.5"),
    ),
    "record": (
        ("a program, with its own options", "record my_agent.py --fast"),
        ("a module", "record -m my_agents.nightly"),
    ),
    "sessions": (
        ("all sessions on this machine", "sessions"),
        ("those of Claude Code in the last week", "sessions claude --since 7d"),
    ),
    "watch": (
        ("the sessions of Claude Code", "watch claude"),
        ("all, also without a terminal", "watch --unattended"),
    ),
    "tail": (
        ("the latest run, and those after it", "tail"),
        ("one run, from its first step on", "tail - --one --all"),
    ),
    "serve": (
        ("this file, on port 8484", "serve"),
        ("with the sessions of Claude Code", "serve --watch claude"),
    ),
    "allow": (
        ("as much again of each limit", "allow -"),
        ("two dollars and 50 steps", "allow - --usd +2 --steps +50"),
    ),
    "terminate": (
        ("the latest run", "terminate - --reason 'too expensive'"),
        ("the latest run of a version", "terminate researcher@1.2 --reason stuck"),
    ),
    "demo": (
        ("into agentspan.db", "demo"),
        ("into a file of its own", "demo --db demo.db"),
    ),
    "export": (
        ("a run as one page for a browser", "export - --format html -o run.html"),
        ("the failed runs with their input", "export --failed --format dataset"),
    ),
    "import": (
        ("the sessions of Claude Code", "import claude"),
        ("what export wrote", "import runs.jsonl.gz"),
    ),
    "copy": (
        ("to another file", "copy archive.db"),
        ("to a collector, from now on", "copy http://localhost:4318 --follow"),
    ),
    "backup": (
        ("the file", "backup today.db"),
        ("another file", "backup today.db --db other.db"),
    ),
    "init": (
        ("migrate a file", "init"),
        ("make the tables on a server", "init postgresql://localhost/agents"),
    ),
    "doctor": (
        ("look, and change nothing", "doctor --dry-run"),
        ("close runs made by id, too", "doctor --idle 2h"),
    ),
    "prune": (
        ("a month, and what failed, stays", "prune --older-than 30d --keep-failed"),
        ("what would go", "prune --max-size 500MB --dry-run"),
    ),
    "rederive": (
        ("the costs of all runs", "rederive --prices"),
        ("the summaries of the latest run", "rederive - --summaries"),
    ),
    "mcp": (
        ("the file of this folder", "mcp"),
        ("another file", "mcp --db runs.db"),
    ),
    "setup": (
        ("for this user, in Claude Code", "setup claude"),
        ("take it back", "setup claude --remove"),
    ),
    "skill": (
        ("how to find what failed", "skill"),
        ("how to record a program", "skill instrument"),
    ),
    "completion": (
        ("for bash", "completion bash >> ~/.bashrc"),
        ("for zsh", "completion zsh >> ~/.zshrc"),
    ),
}
"""By command: what an example is about, and the example without the name of the program."""
