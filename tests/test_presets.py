"""The list of runs: every network of the paper is there, each run once, with a name of its own."""

from dataclasses import replace

import pytest

from dcnas.errors import InputError
from dcnas.study.kinds import Run
from dcnas.study.presets import GROUPS, runs
from dcnas.study.results import paper
from dcnas.study.scales import PUBLISHED_SCALES, SCALE
from dcnas.study.store import file_of, key_of

SECTIONS = ("section2", "section3", "section4")


@pytest.mark.parametrize("scale", SCALE)
def test_no_two_runs_share_a_name_and_none_is_listed_twice(scale):
    everything = {run.name: run for section in SECTIONS for run in runs(section, scale)}
    # as they are published
    assert len({(file_of(run), key_of(run)) for run in everything.values()}) == len(everything)
    for section in SECTIONS:
        names = [run.name for run in runs(section, scale)]
        assert len(names) == len(set(names))
    with pytest.raises(InputError, match="group is 'table_9'"):
        runs("table_9", scale)


def test_a_name_is_stable_and_depends_on_every_field():
    run = runs("table_2", "laptop")[0]
    assert run.name == "0c3f5a60b80634b1"  # or every run that is under way somewhere would begin anew
    fields = ("label", "scale", "task", "source", "seed", "batch", "eval_images", "ce_weight", "threads")
    other = [replace(run, **{name: "x"}) for name in fields]
    other += [replace(run, net=run.net | dict(x=1)), replace(run, data=run.data | dict(clip=True))]
    other.append(replace(run, train=replace(run.train, lr=0.5)))
    assert len({run.name, *(o.name for o in other)}) == len(other) + 1


def test_every_row_of_the_paper_s_tables_has_a_training():
    labels = {run.label for group in GROUPS for run in runs(group, "paper") if isinstance(run, Run)}
    joint = paper("table3_dcnet")
    rows = {*paper("table1_6_classifiers").index, *(joint.index + " " + joint["type"])}
    rows |= {*paper("table5_dcnas", "ours").index, "ResNet-18", "MobileNetV2", "random M", "D-NAS S"}
    rows |= {"UNet Reduced", "D-NAS S upscaled", "UNet b=64 d=5 m=2", "UNet b=32 d=4 m=2 c=2"}
    assert not rows - labels


def test_budgets():
    images = {run.label: run.train.steps * run.batch for run in runs("section3", "laptop")}
    # Tables 2 and 3 see more
    assert images["UNet Reduced"] == images["DC-Net Reduced Integrated"] == 300_000
    assert images["UNet b=8 d=4 m=2 c=2"] == images["DC-Net Baseline Integrated"] == 72_000
    assert {r.train.steps * r.batch for r in runs("table_4", "laptop")} == {128_000}
    plain = runs("table_2", "paper")[0]
    assert (plain.train.schedule, plain.train.lr) == ("plateau", 1e-3)
    assert plain.train.steps * plain.batch == 3_000_000
    assert runs("table_5", "paper")[0].net["dropout"] == 0.2
    assert "dropout" not in runs("table_5", "laptop")[0].net


@pytest.mark.parametrize("scale", ["smoke", *PUBLISHED_SCALES])
@pytest.mark.parametrize("group", ["clipping_check", "precision_check", "normalisation_check"])
def test_a_variant_differs_in_what_is_checked_alone(group, scale):
    groups = ("table_2", "table_3", "figure_3")
    plain = {(r.label, r.seed): r for name in groups for r in runs(name, scale)}
    for run in runs(group, scale):
        base = plain[run.label.rsplit(", ", 1)[0], run.seed]
        change = {
            "clipping_check": dict(data=base.data | dict(clip=True)),
            "precision_check": dict(train=replace(base.train, precision="fp32", channels_last=True)),
            "normalisation_check": dict(net=dict(kind="unet", unet=base.unet | dict(norm_groups=2))),
        }[group]
        assert run == replace(base, label=run.label, **change)
