"""The picture of the README and of links to the book: real models, real people, from the tables of ``published/alice``.

python book/_ext/picture.py book/assets/readme.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from phaselab import figures
from phaselab.book.published import PublishedLab
from phaselab.results import Store
from phaselab.study import load_study

MEASURES = ["brain", "instruction_following", "accuracy"]


def main() -> None:
    """Draw it."""
    lab = PublishedLab(load_study("published:alice"), Store(Path("results")))
    curves, trained = lab.curves("all"), [name for seeds in lab.seeds.values() for name in seeds]
    figure = figures.by_seeds(curves[curves["model"].isin(trained)], lab.seeds, MEASURES, simulated=lab.simulated)
    people = curves.loc[curves["subject"] != "", "subject"].nunique()
    title = (
        f"Six small models in training, and the fMRI of {people} people\nwho listen to a chapter of Alice in Wonderland"
    )
    figure.text(0.5, -0.02, title, ha="center", va="top", fontsize="medium")
    figure.savefig(sys.argv[1], dpi=180, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
