"""1,000 image files of which 50 are bad, of ten kinds: who is named, and how many are trained on."""

from __future__ import annotations

from benchmarks.common import assay, assign, figure, fresh_clone


def main() -> None:
    from tests.support.bad_images import make_folder

    with fresh_clone() as clone:
        bad = make_folder(clone / "raw", good=950, bad=50, seed=0)
        added = assay(clone, "data", "add", "made", str(clone / "raw"), "--kind", "image_folder")
        named = [entry["file"] for entry in added["rejected"]]
        record = assay(clone, "train", "made", *assign("train.epochs=1"))
        figure(
            "1,000 images, 50 bad of ten kinds",
            exactly_the_bad_named=sorted(named) == sorted(map(str, bad)), named=len(named), kept=added["samples"],
            splits=added["splits"], steps=record["steps"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
