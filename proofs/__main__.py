"""Runs the proof of one claim, or lists the claims: `python -m proofs [CLAIM]`.

The last line of standard output is the verdict. The program ends with 0 if the claim holds, 1 if
not, 2 if that could not be found out.
"""

from __future__ import annotations

import ast
import json
import sys
from importlib import import_module
from pathlib import Path

from proofs.verdict import Verdict

CLAIMS = (
    "effects-crash",
    "effects-nemesis",
    "protocol-model",
    "takeover",
    "waiting",
    "throughput",
    "scaleout",
    "gateway-attacks",
    "gateway-cost",
    "tools-duplicates",
    "stock-clients",
    "real-servers",
    "mcp-conformance",
    "who-can",
    "policy-cost",
    "backtest",
    "budget-race",
)
HOLDS, FAILS, UNKNOWN = 0, 1, 2


def prove(claim: str) -> int:
    """Run the proof of a claim, print its verdict and return the exit code."""
    verdict: Verdict
    try:
        verdict = import_module(f"proofs.{_module(claim)}").main()
        line = json.dumps(verdict.to_json(claim))
    except Exception as error:  # noqa: BLE001  # whatever it was: nothing is known then
        print(f"{claim}: {type(error).__name__}: {error}", file=sys.stderr)
        return UNKNOWN
    print(line, flush=True)
    return HOLDS if verdict.holds else FAILS


def list_claims() -> None:
    """Print each claim with the first sentence of its module."""
    for claim in CLAIMS:
        source = (Path(__file__).parent / f"{_module(claim)}.py").read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(source)) or ""
        print(f"{claim:16} {said.partition(chr(10))[0]}")


def _module(claim: str) -> str:
    return claim.replace("-", "_")


def main(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    match [argument for argument in arguments if argument]:
        case []:
            list_claims()
            return HOLDS
        case [claim] if claim in CLAIMS:
            return prove(claim)
        case _:
            print(f"give one of {', '.join(CLAIMS)}", file=sys.stderr)
            return UNKNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
