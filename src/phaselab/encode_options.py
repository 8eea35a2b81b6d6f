"""What ``phaselab encode`` can be asked: one declaration of its options, of job files and of what provenance keeps."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from phaselab.errors import expect
from phaselab.files import home
from phaselab.study import EncodingSpec

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Files = Annotated[Texts, Field(min_length=1)]
Home = BeforeValidator(lambda value: home(value) if isinstance(value, (str, Path)) else value)
Table = Annotated[Path | None, Home]
Commas = BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
Delays = Annotated[tuple[Annotated[int, Field(ge=0, le=1000)], ...], Commas]
Power = Annotated[float, Field(ge=-300, le=300)]
Grid = tuple[Power, Power, Annotated[int, Field(ge=1)]]
Hemodynamics = Literal["none", "hrf", "average", "stack"]


class EncodeJob(EncodingSpec):
    """The options, with their help; paths are relative to the current folder."""

    # What means nothing here of a study's section.
    shuffles: ClassVar[int] = 0  # type: ignore[misc]
    similarity: ClassVar[tuple[Literal["rsa", "cka"], ...]] = ()  # type: ignore[misc]
    unique: ClassVar[bool] = False  # type: ignore[misc]

    features: Files = Field(description="(TRs or items, features), or with (layers, ...) first; repeatable.")
    responses: Files = Field(description="(TRs, voxels); repeat it, with names, for more subjects.")
    out: Annotated[Path, Home] = Field(description="Table of scores, .parquet or .csv; a .json comes beside it.")
    runs: Table = Field(None, description="Table: a row per TR (run) or a run (run,n_trs), for all subjects.")
    folds: Literal["runs", "groups", "contiguous", "shuffled"] = Field(  # type: ignore[assignment]
        "runs", description="Runs, --n-folds groups, or stretches; items may be shuffled."
    )
    independent: bool = Field(False, description="Rows are items, such as sentences, without an order in time.")
    gap: int = Field(10, ge=0, description="TRs left out beside a contiguous fold.")
    log10_alphas: Grid = Field((-12, 12, 25), description="Log10 of lowest, highest penalty; number.")
    hemodynamics: Hemodynamics = Field("none", description="In each run: canonical, average or stack over --delays.")
    delays: Delays = Field((), description="TRs from stimulus to response, with commas: 2,3,4.")
    tr: float | None = Field(None, ge=0.05, le=60, description="Seconds a TR, for --hemodynamics hrf.")
    trim: int = Field(0, ge=0, description="TRs dropped at the start of each run, after the haemodynamics.")
    permutations: int = Field(1000, ge=0, le=10**6, description="Of the test of each voxel; 0: no test.")
    null: Literal["block", "circular", "pooled"] = Field("block", description="What is permuted: blocks, runs, voxels.")
    rois: Table = Field(None, description="Table: voxel (from 0), roi, and subject where there are several.")
    ceiling: Texts = Field((), description="(voxels,) noise ceiling as a correlation.")
    seed: int = Field(0, ge=0, description="Of the permutations.")
    device: str = Field("cpu", description="Of the ridge regressions: cpu, cuda, cuda:N, or auto.")
    threads: int = Field(1, ge=1, le=256, description="Of the CPU; more help where nobody else computes.")

    @model_validator(mode="before")
    @classmethod
    def _folds_of_known_runs(cls, content: dict[str, Any]) -> dict[str, Any]:
        items = content.get("independent")
        folds = "runs" if content.get("runs") else "shuffled" if items else "contiguous"
        blocks = items and content.get("permutations") != 0 and content.get("null") != "circular"
        return {"folds": folds} | ({"block": 1} if blocks else {}) | content

    @model_validator(mode="after")
    def _options_together(self) -> Self:
        low, high, n = self.log10_alphas
        right = "the lowest before the highest, and more than one of them; or one that is both"
        expect(low <= high and (low < high) == (n > 1), "alphas", f"{low:g} to {high:g}", right)
        how, distinct = f"{self.delays} with hemodynamics {self.hemodynamics}", {*self.delays}
        fits = len(distinct) == len(self.delays) and bool(distinct) == (self.hemodynamics in ("average", "stack"))
        expect(fits, "delays", how, "distinct numbers of TRs, such as 2,3,4, with average or stack alone")
        fits = (self.tr is not None) == (self.hemodynamics == "hrf")
        expect(fits, "tr", f"{self.tr} with hemodynamics {self.hemodynamics}", "seconds, with hrf alone")
        timeless = (self.hemodynamics, self.trim) == ("none", 0) and self.folds != "contiguous"
        how = f"{self.independent} with folds {self.folds}, hemodynamics {self.hemodynamics}, trim {self.trim}"
        right = "it for items without time alone, and with folds shuffled, runs or groups, hemodynamics none, trim 0"
        expect(timeless if self.independent else self.folds != "shuffled", "independent", how, right)
        return self

    @property
    def rows(self) -> str:
        """What a row of features and responses is, in messages."""
        return "items" if self.independent else "TRs"
