"""How many secrets redaction keeps out, and how many harmless texts it changes.

The corpus is in tests/recording/secrets: payloads as an agent records them, with a secret each, and payloads of which
nothing is secret. Its author had not seen the rules. Each payload is recorded by itself; a secret is kept out if it is
in nothing of what is stored.

    python benchmarks/bench_secrets.py [--corpus FOLDER] [--missed]
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import verdict

from tests.recording.secrets.corpus import FOLDER, HARMLESS, SECRETS, cases, is_kept_out, stored

WANTED = 95.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=FOLDER, help="a folder with the two files")
    parser.add_argument("--missed", action="store_true", help="print the secrets that were stored, too")
    options = parser.parse_args()
    secrets, harmless = cases(SECRETS, options.corpus), cases(HARMLESS, options.corpus)
    kept = [is_kept_out(case, shown) for case, shown in zip(secrets, stored(secrets), strict=True)]
    changed = [(c, shown) for c, shown in zip(harmless, stored(harmless), strict=True) if shown != c.payload]
    total, out = (
        Counter(case.kind for case in secrets),
        Counter(c.kind for c, is_out in zip(secrets, kept, strict=True) if is_out),
    )
    for kind in sorted(total):
        print(f"{kind:<40}{out[kind]:>4} of {total[kind]:>3}")
    if options.missed:
        print(*(f"missed: {case}" for case, is_out in zip(secrets, kept, strict=True) if not is_out), sep="\n")
    for case, shown in changed:
        print(f"changed: {case.kind}: {case.payload} is stored as {shown}")
    print(verdict(f"secrets kept out, of {len(secrets)}", 100 * sum(kept) / len(secrets), WANTED, "%", at_least=True))
    print(verdict(f"harmless payloads changed, of {len(harmless)}", len(changed), 0, ""))


if __name__ == "__main__":
    main()
