"""docs/fits.md is what the compilers said, and its rows and gaps are told from each other."""

from document_makers import ROOT, maker

from evqgan.benchmark import fits

ROW = fits.Row(
    "imagenet_stage2",
    "",
    "v5e-16",
    "train",
    program="step",
    images=1024,
    mesh="data 16",
    fits=True,
    peak_gib=7.5,
    state_gib=2.0,
    memory_gib=15.75,
    tflop=9.74,
    ms=1193.0,
    mfu=0.414,
    collectives=1200,
    gb=1.05,
)


def test_the_page_is_that_of_the_measurements():
    rows = fits.earlier(str(ROOT / "docs" / "measurements" / "fits.json"))
    assert (ROOT / "docs" / "fits.md").read_text() == maker("fits_table").page(rows), (
        "python -m docs.make.fits_table docs/fits.md makes it again"
    )


def test_a_row_has_its_keys_and_a_gap_is_named():
    codes = "--config.dataset.codes=IDS --config.generator.unroll=1"
    note = "the total memory required for HLO temporaries (59.12G) exceeds it"
    nothing = dict.fromkeys(("peak_gib", "ms", "mfu", "collectives", "gb"))
    changed = ROW._replace(changes=codes, fits=False, note=note, **nothing)
    lost = fits.Row("celebahq_stage2", "", "v5e-16", "train", note="a batch of 8")
    sampled = ROW._replace(config="imagenet_stage1", mode="sample", program="decoder")
    of_gpu = ROW._replace(topology="h100-8")
    given = [sampled, changed, lost, ROW, of_gpu]
    text = maker("fits_table").page(given)
    lines, paragraphs = text.splitlines(), [" ".join(x.split()) for x in text.split("\n\n")]
    rows = [line for line in lines if line.startswith("| `")]
    assert rows[0] == (
        "| `imagenet_stage2` | train | data 16 | 1,024 | yes | 7.50 | 15.75 | 2.00 | 9.74 | 1.2 s "
        "| 41.4% | 1,200 | 1.05 |"
    )
    assert rows[3] == rows[0]
    assert rows[1].startswith("| `imagenet_stage2`, `generator.unroll=1` | train | data 16 | 1,024")
    assert "| **no** | 59.12 of temporaries | 15.75 |" in rows[1]
    assert rows[2].startswith("| `imagenet_stage1` | decoder |") and len(rows) == 4
    assert text.index(rows[2]) < text.index("## h100-8") < text.rindex(rows[3])
    (gap,) = (text for text in paragraphs if "`ffhq_stage2`" in text)
    assert "`imagenet_stage1`" in gap and "`imagenet_stage2`," not in gap
    assert "celebahq_stage2" not in gap
    assert "`celebahq_stage2` was refused: a batch of 8." in paragraphs
    assert sum("not compiled yet: all." in text for text in paragraphs) == 4
    assert all(len(line) <= 120 or line.startswith("|") for line in lines)


def test_what_does_not_fit_shows_how_much_it_would_take():
    for note, shown in (
        ("HLO temporaries (59.12G)", ""),
        ("total memory required for HLO temporaries (59.12G) exceeds", "59.12 of temporaries"),
        ("Ran out of memory in memory space hbm. Used 15.80G of 15.75G hbm. Exceeded", "15.80"),
    ):
        row = ROW._replace(fits=False, note=note, peak_gib=None)
        assert f"| **no** | {shown} | 15.75 |" in maker("fits_table").page([row])


def test_a_config_that_was_compiled_with_other_keys_alone_is_still_a_gap():
    for changes, is_gap in (("generator.unroll=1", True), ("dataset.codes=IDS", False)):
        page = maker("fits_table").page([ROW._replace(changes=f"--config.{changes}")])
        there = page.partition("## v5e-16")[2].partition("##")[0]
        assert ("`imagenet_stage2`," in there.partition("not compiled yet: ")[2]) == is_gap
