"""Recipes: what ships, inheritance, refusals with the key's path, and hashes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan_kd import recipe as recipes
from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe, backbones, load, recipe_hash, schema, ssd, to_yaml, uncounted
from gan_kd.recipe.load import SHIPPED
from gan_kd.report.published import TABLES
from gan_kd.study.load import load as load_study

MAIN = "voc/mobilenet1.0-resnet50_v1"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a recipe file into a folder of its own and gives its path."""

    def write_file(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write_file


# What ships


@pytest.mark.parametrize("name", recipes.names())
@pytest.mark.parametrize("docs", [False, True])
def test_shipped_recipe_survives_its_own_yaml(name: str, docs: bool, write: Any) -> None:
    recipe = load(name)
    assert recipe.name == name and recipe.description
    again = load(write(to_yaml(recipe, docs), "recipe.yaml"))
    assert again == recipe and recipe_hash(again) == recipe_hash(recipe)


def test_each_published_cell_has_one_recipe_with_its_numbers() -> None:
    found = [(load(name).published, (SHIPPED / f"{name}.yaml").read_text()) for name in recipes.names()]
    cells = {
        recipes.Published(table, row, column): (values["none"], values[column])
        for table in (1, 2, 3)
        for row, values in TABLES[table].rows.items()
        for column in values
    }
    # Of Localization Distillation what is built: DeFeat is not, and "Ours" stands in several tables, in table 4 here.
    # So do main LD and LD in both regions, in table 1.
    left_out = {"DeFeat", "Ours", "main LD", "main LD + VLR LD", "main KD + main LD + VLR LD"}
    for paper, table, name in (("localization", n, f"LD {n}") for n in (1, 2, 3, 4)):
        for row, values in TABLES[name].rows.items():
            for column in values.keys() - left_out:
                if ", AP" not in row and (column != "none" or table == 4):
                    cells[recipes.Published(table, row, column, paper)] = (values["none"], values[column])
    voc = TABLES["LD repository 1"].rows["ResNet18"]
    for column in ("none", "main LD"):
        cells[recipes.Published(1, "ResNet18", column, "localization_repository")] = (voc["none"], voc[column])
    assert sorted(str(place) for place, _ in found if place) == sorted(map(str, cells))
    for place, text in found:
        assert place is None or all(f" {number:g}" in text for number in cells[place]), place


def test_baseline_has_the_schedule_of_the_distilled_student() -> None:
    for name in recipes.names():
        stages = load(name).stages.values()
        if not load(name).trains("distilled"):
            continue
        plain = [
            dataclasses.replace(stage, trains="", distillers=[]) for stage in stages if stage.trains == "distilled"
        ]
        for network in ("baseline", "control"):
            mirrored = [dataclasses.replace(stage, trains="") for stage in stages if stage.trains == network]
            assert not mirrored or mirrored == plain, (name, network)


def test_every_published_distilled_student_has_its_baseline_beside_it() -> None:
    for name in recipes.names():
        place = load(name).published
        assert place is None or load(name).trains("baseline"), name


def test_arms_of_the_small_study_share_data_and_schedule() -> None:
    arms = [load(name) for name in load_study("small")[1].arms.values()]

    def shared(recipe: Recipe) -> object:
        stages = [dataclasses.replace(stage, trains="", distillers=[]) for stage in recipe.stages.values()]
        return recipe.data, recipe.teacher, recipe.student, recipe.train, recipe.eval, stages

    assert len(arms) == 6
    assert all(shared(arm) == shared(arms[0]) for arm in arms)


def test_paper_numbers() -> None:
    recipe = load(MAIN)
    adversarial, finetune = recipe.stages["adversarial"], recipe.stages["finetune"]
    assert (adversarial.epochs, adversarial.epochs + finetune.epochs, recipe.data.size) == (221, 340, 512)
    assert (adversarial.optimizer.name, adversarial.optimizer.lr, adversarial.optimizer.beta1) == (
        "adam",
        5e-4,
        0.5,
    )
    assert (finetune.optimizer.name, finetune.optimizer.lr, finetune.optimizer.wd) == ("sgd", 1e-3, 5e-4)
    gan = recipe.distill.gan
    assert (gan.clamp, gan.optimizer.name, gan.optimizer.lr, gan.critic_steps) == (0.03, "adam", 5e-4, 1)
    assert (recipe.train.batch_size, recipe.train.seed) == (64, 233)


def test_backbones_and_zoo_weights_are_those_of_the_libraries() -> None:
    from gluoncv.model_zoo import model_store

    from gan_kd.detectors.ssd import zoo  # imports mxnet

    assert {*ssd.FIRST_STRIDE, *backbones.BY_STRIDE} == set(zoo.backbones())
    known = {f"ssd_{px}_{backbone}_{data}" for data, pairs in ssd.ZOO_WEIGHTS.items() for px, backbone in pairs}
    assert known == {name for name in model_store._model_sha1 if name.startswith("ssd_") and "int8" not in name}


def test_a_pair_and_a_distiller_of_ones_own_read_back_equal() -> None:
    recipe = load(
        MAIN,
        [
            "student={backbone: mobilenetv3_small, taps: [a, b]}",
            "stages.adversarial.distillers=[gan, my.methods.Own]",
            "distill.custom={my.methods.Own: {weight: 2.0, layers: [1, 2], kind: l1}}",
        ],
    )
    assert recipe.distill.custom["my.methods.Own"] == {"weight": 2.0, "layers": [1, 2], "kind": "l1"}
    assert recipes.from_dict(yaml.safe_load(to_yaml(recipe))) == recipe


def test_every_knob_is_documented() -> None:
    for kind in vars(schema).values():
        if dataclasses.is_dataclass(kind):
            assert kind.__doc__
            for knob in dataclasses.fields(kind):
                section = getattr(schema, str(knob.type), None)
                assert knob.metadata["doc"] or dataclasses.is_dataclass(section), knob.name


def test_show() -> None:
    table = recipes.show().splitlines()
    assert [line.split()[0] for line in table] == list(recipes.names())
    assert len({line.index(load(name).description) for line, name in zip(table, recipes.names())}) == 1
    cells = {line.split()[0]: line[line.index("table ") :] for line in table if "table " in line}
    assert cells["voc/mobilenet1.0-resnet50_v1-cosine"] == "table 1: MobileNetV1 <- ResNet50 + cosine attention"
    assert cells["coco/mobilenetv2_1.0"] == "table 2: MobileNetV2 alone"
    assert not {"demo", "voc/teacher-resnet50_v1", "voc/mobilenet1.0-resnet50_v1-control"} & cells.keys()
    shown = recipes.show("demo").splitlines()
    size = next(line for line in shown if line.startswith("  size:"))
    assert "px" in size and size.endswith("[default: 512]")
    # D's own defaults are not those of the students' optimiser.
    adversary = shown[shown.index(next(line for line in shown if line.startswith("  gan:"))) :]
    assert "default" not in next(line for line in adversary if line.startswith("      lr:"))


def test_import_needs_no_mxnet() -> None:
    code = "import sys, gan_kd.recipe; sys.exit('mxnet' in sys.modules or 'gluoncv' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SHIPPED.parents[1]).returncode == 0


# Inheritance and overrides


def test_inheritance(write: Any) -> None:
    write("inherits: demo\nstages: {adversarial: {distillers: [cosine_attention], epochs: 9}}\n", "parent.yaml")
    path = write("inherits: parent.yaml\ndata: {size: 96}\nstages: {baseline: null, baseline_finetune: null}\n")
    recipe, demo = load(path), load("demo")
    assert (recipe.name, recipe.description) == ("mine", "")
    assert recipe.data == dataclasses.replace(demo.data, size=96)
    assert list(recipe.stages) == ["teacher", "adversarial", "finetune"]
    changed = dataclasses.replace(demo.stages["adversarial"], distillers=["cosine_attention"], epochs=9)
    assert recipe.stages["adversarial"] == changed


def test_later_overrides_win_and_values_are_yaml() -> None:
    batches = ["train.batch_size=8", "train.batch_size=16"]
    recipe = load(MAIN, [*batches, "data.classes=[cat, dog]", "teacher.weights=", "distill.gan.optimizer.lr=1e-3"])
    assert recipe.train.batch_size == 16
    assert recipe.data.classes == ["cat", "dog"]
    assert recipe.teacher.weights is None and recipe.stages["teacher"].trains == "teacher"
    assert recipe.distill.gan.optimizer == dataclasses.replace(load(MAIN).distill.gan.optimizer, lr=0.001)


def test_teacher_weights_drop_the_stages_that_train_it() -> None:
    stages = load("mini/mobilenet0.25-mobilenet1.0", ["teacher.weights=runs/teacher/best.params"]).stages
    assert stages and "teacher" not in [stage.trains for stage in stages.values()]


def test_the_demo_trains_baseline_and_distilled_alike() -> None:
    recipe = load("demo")
    own, taught = ([s for s in recipe.stages.values() if s.trains == name] for name in ("baseline", "distilled"))
    assert [dataclasses.replace(stage, trains="baseline", distillers=[]) for stage in taught] == own


def test_new_stage_by_override() -> None:
    more = ["distill.head=inherit", "stages.control={trains: control, epochs: 2}"]
    assert load("demo", more).stages["control"].epochs == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its top has to be a map"),
        ("- demo", "its top has to be a map"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "line 2: key train is given twice"),
        ("train: {seed: 1, seed: 2}", "line 1: key seed is given twice"),
        ("train: [1", "line 1: "),
        ("inherits: dem", "mine.yaml: there is no recipe dem (did you mean demo?)"),
        ("inherits: other.yaml", "there is no recipe file"),
        ("inherits: [demo]", "has to be the name of one recipe"),
        ("inherits: mine.yaml", "inherits from itself"),
        (
            "inherits: demo\ntrain: {sed: 1}",
            "mine.yaml: train.sed is not a recipe key (did you mean train.seed?)",
        ),
        (
            "inherits: demo\nstages: {baselin: null}",
            "stages.baselin: there is no such stage to take away (did you",
        ),
        ("inherits: demo\ndata: null", "data has to be a map of keys, not null"),
        ("inherits: demo\n1: 2", "1 is not a recipe key: keys are text"),
        (
            "inherits: demo\nstages: {a.b: {trains: baseline, epochs: 1}}",
            "stages.a.b: a stage's name is of letters",
        ),
        ("train: {seed: 1}", "stages is empty"),
        ("inherits: demo\nname: ../x", "name ../x cannot be a folder"),
    ],
)
def test_bad_file(text: str, message: str, write: Any) -> None:
    with pytest.raises(UsageError) as error:
        load(write(text))
    assert message in str(error.value) and "mine.yaml" in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(UsageError, match="latin.yaml is not a readable recipe: .*utf-8"):
        load(tmp_path / "latin.yaml")
    with pytest.raises(
        UsageError, match="no recipe voc/mobilenet1.0-resnet50 .did you mean voc/mobilenet1.0-resnet50_v1"
    ):
        load("voc/mobilenet1.0-resnet50")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # unknown keys, with the nearest right name
        ("stages.adversarial.optimizer.lrr=1",
         "adversarial.optimizer.lrr is not a recipe key (did you mean stages.adversarial.optimizer.lr?)"),
        ("batch_size=4", "batch_size is not a recipe key (did you mean train.batch_size?)"),
        ("zzz=4", "zzz is not a recipe key (one of: name, description,"),
        ("stages.adversrial.epochs=3", "stages.adversrial is no stage (did you mean adversarial?)"),
        ("data.dataset=vocc", "data.dataset cannot be vocc (did you mean voc?)"),
        ("student.backbone=mobilnet1.0",
         "student.backbone cannot be mobilnet1.0 (did you mean mobilenet1.0?)"),
        ("student.init=imagnet",
         "student.init imagnet is neither a file nor a known word (did you mean imagenet?)"),
        ("data.classes=vocs", "data.classes vocs is neither a file nor a known word (did you mean voc?)"),
        ("stages.adversarial.distillers=[gann]",
         "stages.adversarial.distillers[0] cannot be gann (did you mean gan?)"),
        ("stages.adversarial.distillers=[my.own-method]", "your own is written package.module.Class"),
        ("distill.custom={my.methods.Own: {weight: 2}}",
         "distill.custom has arguments of my.methods.Own, which no stage has"),
        ("distill.custom={my.methods.Own: {weight: {a: 1}}}",
         "distill.custom.my.methods.Own.weight has to be an argument's name with a text, a number or a list"),
        ("student.taps=relu22_fwd", "student.taps has to be a list, not relu22_fwd"),
        ("student.taps=[relu22_fwd, relu22_fwd]", "student.taps names relu22_fwd twice"),
        ("train.seed", "write KEY=VALUE"),
        ("train.seed=[", "--set train.seed=[: the value is not YAML"),
        # wrong types
        ("train.batch_size=64.0", "train.batch_size has to be a whole number, not 64.0"),
        ("train.batch_size=true", "train.batch_size has to be a whole number, not true"),
        ("distill.gan.clamp=small", "distill.gan.clamp has to be a number, not small"),
        ("distill.gan.clamp=false", "distill.gan.clamp has to be a number, not false"),
        ("data.root=2012", "data.root has to be text, not 2012 (put it in quotes)"),
        ("data.root=", "data.root has to be text, not null"),
        ("data.root=''", "data.root is empty"),
        ("distill.head=teachers", "distill.head cannot be teachers (did you mean teacher?)"),
        ("distill.head=none", "distill.head cannot be none (one of: inherit, own, untrained"),
        ("data.val=2007/test", "data.val has to be a list, not 2007/test (write [2007/test])"),
        ("data.classes=[cat, no]", "data.classes[1] has to be text, not false"),
        ("published={tabel: 1}", "published.tabel is not a recipe key (did you mean published.table?)"),
        ("distill=gan", "distill has to be a map of keys, not gan"),
        # numbers out of bounds
        ("stages.finetune.epochs=0", "stages.finetune.epochs is 0, but has to be at least 1"),
        ("distill.gan.clamp=0", "distill.gan.clamp is 0.0, but has to be above 0"),
        ("distill.gan.clamp=.nan", "distill.gan.clamp is .nan, but has to be above 0"),
        ("distill.gan.weight=-1", "distill.gan.weight is -1.0, but has to be at least 0"),
        ("stages.finetune.optimizer.lr=.inf", "stages.finetune.optimizer.lr is .inf"),
        ("stages.finetune.optimizer.momentum=1", "has to be at least 0 and below 1"),
        ("data.size=32", "data.size is 32, but has to be at least 64 and at most 2048"),
        ("train.seed=-1", "train.seed is -1, but has to be at least 0"),
        # combinations that cannot work
        ("stages.baseline.distillers=[gan]", "stages.baseline.distillers: baseline is trained without"),
        ("stages.adversarial.distillers=[gan, gan]", "stages.adversarial.distillers names gan twice"),
        ("stages.adversarial.distillers=[]", "none of the distilled student has distillers"),
        ("stages.control={trains: control, epochs: 1, distillers: [gan]}",
         "stages.control.distillers: head inheritance is"),
        ("teacher.backbone=vgg16_atrous",
         "distill.head inherit: SSDs on vgg16_atrous and mobilenet1.0 differ in maps"),
        ("data.size=300",
         "teacher.weights zoo: GluonCV has no SSD on resnet50_v1 at 300 px for these classes (there are"),
        ("data.classes=[cat]", "(there are: none); name a .params file"),
        ("teacher.weights=zo", "teacher.weights zo is neither a file nor a known word (did you mean zoo?)"),
        ("stages.finetune.schedule.at=[119]",
         "stages.finetune.schedule.at: epoch 119 lies outside stages.finetune"),
        ("stages.finetune.schedule.at=[0.5, 30]", "stages.finetune.schedule.at has to ascend"),
        ("distill.gan.schedule.at=[300]",
         "distill.gan.schedule.at: epoch 300 lies outside stages.adversarial"),
        ("data.train=[]", "data.train is empty"),
        ("data.train=[trainval]",
         "data.train: splits of voc are written YEAR/NAME, as in 2007/test, not trainval"),
        ("data.classes=[cat, cat]", "data.classes names cat twice"),
        ("train.batch_size=1", "train.batch_size 1 cannot be split over 2 contexts"),
        ("eval.batch_size=1", "eval.batch_size 1 cannot be split over 2 contexts"),
        ("train.contexts=[gpu0]", "train.contexts[0] is written cpu:0 or gpu:0, not gpu0"),
        ("train.contexts=['cpu:2000000000']", "train.contexts[0] is written cpu:0 or gpu:0, not cpu:2000000000"),
        ("train.contexts=['cpu:0', 'cpu:0']", "train.contexts names cpu:0 twice"),
        ("train.contexts=['cpu:0', 'gpu:0']", "either GPUs or CPUs"),
        ("train.contexts=[]", "either GPUs or CPUs"),
        ("eval.metric=coco", "eval.metric coco needs data.dataset coco, not voc"),
        ("eval.nms_topk=50", "eval.post_nms 100 is above eval.nms_topk 50"),
    ],
)  # fmt: skip
def test_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(MAIN, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.weights=null", "stages.teacher=null"], "stages need a teacher"),
        (["teacher.weights=null", "stages.teacher=null", "stages.late={trains: teacher, epochs: 1}"],
         "stages train the teacher after the distilled student"),
        (["distill.head=student", "stages.c={trains: control, epochs: 1}"],
         "head inheritance (trains: inherit) needs distill.head inherit or untrained, not own"),
        (["distill.head=own", "stages.c={trains: inherit, epochs: 1}"],
         "head inheritance (trains: inherit) needs distill.head inherit or untrained, not own"),
        (["teacher.backbone=vgg16_atrous", "distill.head=untrained"],
         "distill.head untrained: SSDs on vgg16_atrous and mobilenet1.0 differ in maps"),
        (["data.dataset=coco", "eval.metric=coco", "data.val=[a, b]"], "eval.metric coco counts one split, not a, b"),
        (["data.dataset=coco", "eval.metric=coco", "data.train=[a, b]", "data.val=[c]", "data.holdout=4"],
         "eval.metric coco counts one split, not a, b"),
        (["student.backbone=resnet34_v1b", "distill.head=student"],
         "student.backbone resnet34_v1b needs data.size 300"),
        (["distill.gan.kind=cell"], "distill.gan.kind cell has no norm, but distill.gan.norm is batch: set it to none"),
        (["distill.gan.critic_only_epochs=300"], "distill.gan.critic_only_epochs 300 leave the student none"),
        (["distill.gan.limit=penalty"], "distill.gan.limit penalty needs a critic without norm, not batch"),
        (["distill.gan.limit=penalty", "distill.gan.norm=none", "train.amp=true"],
         "distill.gan.limit penalty works in float32 only: leave --amp out"),
    ],
)  # fmt: skip
def test_refused_together(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(MAIN, overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.dataset=coco", "data.train=[train2017]", "data.val=[val2017]"],  # and voc07
        ["stages.adversarial=null", "stages.finetune=null", "teacher.weights=null", "stages.teacher=null"],
        ["teacher.backbone=vgg16_atrous", "distill.head=student"],
        ["stages.finetune.schedule={name: cosine, at: [500]}"],
        ["data.size=96", "teacher.weights=teacher.params"],
        ["distill.gan={kind: cell, norm: none, condition: teacher, loss: hinge, limit: spectral, match: 1}"],
        ["stages.adversarial.distillers=[outputs]", "distill.gan.kind=cell"],  # no critic is made
    ],
)
def test_allowed(overrides: list[str]) -> None:
    load(MAIN, overrides)


def test_from_dict_takes_what_yaml_gives() -> None:
    recipe = load("demo")
    assert recipes.from_dict(yaml.safe_load(to_yaml(recipe))) == recipe
    with pytest.raises(UsageError, match="name is missing"):
        recipes.from_dict({})


# Hash


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("name=x", True),
        ("data.root=/elsewhere", True),
        ("train.contexts=['gpu:3']", True),
        ("train.num_workers=0", True),
        ("train.log_interval=1", True),
        ("train.tensorboard=true", True),
        ("train.keep=9", True),
        ("eval.batch_size=8", True),
        ("train.amp=false", True),
        ("train.amp=true", False),
        ("train.sync_bn=true", False),
        ("train.seed=1", False),
        ("train.batch_size=32", False),
        ("eval.metric=voc10", False),
        ("distill.gan.optimizer.lr=0.0004", False),
        ("stages.finetune.epochs=118", False),
    ],
)
def test_hash_follows_what_moves_the_numbers(override: str, same: bool) -> None:
    assert (recipe_hash(load(MAIN, [override])) == recipe_hash(load(MAIN))) is same


def test_hash_sees_the_order_of_stages(write: Any) -> None:
    recipe = load(MAIN)
    turned = dataclasses.replace(recipe, stages=dict(reversed(list(recipe.stages.items()))))
    assert recipe_hash(turned) != recipe_hash(recipe)


def test_words_of_older_recipes_stay_and_change_no_hash(write: Any) -> None:
    """The hashes are those before the words were renamed."""
    for name, stored in (
        (MAIN, "d3a795653b0d65b552c922c190cfce1c09dd94b968786bf5f4c3107dd2e80de5"),
        ("voc/mobilenet1.0-vgg16_atrous", "eaef00600d075f923a1b58d28c097fcead0a6fc840297af1f5259e3ea94e5ab1"),
        ("voc/mobilenet1.0-resnet50_v1-control", "571019f698dc6b5055cb1625d70b6fac4017eb6ebe46b22792fadeae6dd88dab"),
        ("coco/mobilenet1.0-resnet50_v1", "5b15adc2afba6237495268218a4bbc8564ed75ee6580c17389f8942d7d3021e3"),
        ("mini/control", "9798277213261689a4679aabf03fcd462af7f10636cd8349a457f91b8eea19b7"),
        ("ablation/head-student", "3c7e925f60ef09f7a90f2e5281650551b317afe327e443a7ba99b125d771bb5f"),
    ):
        assert recipe_hash(load(name)) == stored, name
    for older, newer in (("teacher", "inherit"), ("student", "own")):
        one, other = (load("demo", [f"distill.head={word}"]) for word in (older, newer))
        assert one == other and one.distill.head == newer and recipe_hash(one) == recipe_hash(other)
        assert schema.Distill(head=older) == schema.Distill(head=newer)
        text = to_yaml(one).replace(f"head: {newer}", f"head: {older}")
        assert f"head: {older}" in text and load(write(text, f"{older}.yaml")) == one
    assert recipe_hash(load("demo", ["distill.head=untrained"])) != recipe_hash(load("demo"))
    one, other = (load("mini/gan", [f"stages.c={{trains: {word}, epochs: 1}}"]) for word in ("control", "inherit"))
    assert one == other and one.stages["c"].trains == "control" and recipe_hash(one) == recipe_hash(other)
    assert recipe_hash(one) == "a98562adcbd210f0428eef816b9695106e4f67501bca0f57881e6bb2ed1dfe52"


def test_keys_that_the_hash_leaves_out() -> None:
    assert {"name", "data.root", "eval.batch_size", "train.worker_timeout", "train.keep"} <= set(uncounted())
    assert not {"train", "train.seed", "train.sync_bn", "data", "eval.nms", "distill.gan"} & set(uncounted())
