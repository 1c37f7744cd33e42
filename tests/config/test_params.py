"""An error in params.yaml is one line that names the key, the value and the remedy."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from timm.data import ImageNetInfo

from anklealign.config import params
from anklealign.config.params import Dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw():
    # Through JSON, so that the candidates of `auto` are no longer the configs they are copied from.
    return json.loads(json.dumps(params.read(ROOT / "params.yaml")))


def test_the_committed_params_yaml_is_valid(raw):
    assert params.check(raw) == []


def test_every_setting_has_a_comment():
    # Blocks of a table repeat their keys: explained once is enough. Names of blocks and of classes
    # explain themselves.
    raw = params.read(ROOT / "params.yaml")
    names = {*raw, *raw["datasets"], *raw["models"], "classes", "augmentation", "arguments"}
    names |= {name for block in raw["datasets"].values() for name in block["classes"]}
    names |= raw["models"]["auto"]["candidates"].keys()
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    lines = re.sub(r",\n +", ", ", text).splitlines()  # a flow mapping may be wrapped
    keys = {line.split(":")[0].strip(): line for line in lines if re.match(r" *\w+:", line)}
    explained = {line.split(":")[0].strip() for line in lines if " # " in line}
    explained |= {line.split()[1] for line in lines if line.startswith("#   ")}
    assert keys.keys() - explained - names == set()


ERRORS = {
    "unknown key": (
        lambda raw: raw["split"].update(grop="subject"),
        r"split\.grop = 'subject' is an unknown key; did you mean group\?",
    ),
    "unknown top key": (
        lambda raw: raw.update(modle="vit"),
        r"modle is an unknown key; did you mean model\?",
    ),
    "missing key": (lambda raw: raw["split"].pop("group"), r"split\.group is missing; add it"),
    "wrong type": (
        lambda raw: raw["train"].update(batch_size="many"),
        r"train\.batch_size = 'many': .*integer",
    ),
    "no float for a whole number": (
        lambda raw: raw["train"].update(batch_size=1.5),
        r"train\.batch_size = 1\.5: .*integer",
    ),
    "no truth value for a number": (
        lambda raw: raw.update(seed=True),
        r"seed = True: .*integer",
    ),
    "out of range": (
        lambda raw: raw["train"]["augmentation"].update(random_crop=1.5),
        r"train\.augmentation\.random_crop = 1\.5: .*less than 1",
    ),
    "no choice": (
        lambda raw: raw["split"].update(group="family"),
        r"split\.group = 'family': .*'subject' or 'collector'",
    ),
    "unknown model": (
        lambda raw: raw.update(model="vitt"),
        r"model = 'vitt' is not a key of models; choose one of: majority, .*vit",
    ),
    "unknown dataset": (
        lambda raw: raw.update(dataset="ankles"),
        r"dataset = 'ankles' is not a key of datasets; choose one of: synthetic, ankle",
    ),
    "one class": (
        lambda raw: raw["datasets"]["ants_bees"].update(classes={"ants": []}),
        r"datasets\.ants_bees\.classes = .*at least 2",
    ),
    "bad pattern": (
        lambda raw: raw["datasets"]["ankle"].update(subject_pattern="(?P<subject>"),
        r"datasets\.ankle: subject_pattern: .* not a regular expression",
    ),
    "pattern without the group subject": (
        lambda raw: raw["datasets"]["ankle"].update(subject_pattern=r"\d+"),
        r"no group named subject; write",
    ),
    "nothing left to train on": (
        lambda raw: raw["split"].update(val=0.5, test=0.5),
        r"leave no photos for training; lower one",
    ),
    "a test part that is neither": (
        lambda raw: raw["split"].update(test="concensus"),
        r"split: test = 'concensus' is neither a fraction of the photos nor 'consensus'",
    ),
    "no share": (
        lambda raw: raw["split"].update(test=1.5),
        r"split: test = 1\.5 is not a fraction between 0 and 1",
    ),
    "folds of a fixed test part": (
        lambda raw: raw["split"].update(test="consensus", fold=0),
        r"fold = 0 with test = 'consensus': .*choose one",
    ),
    "no way to a consensus": (
        lambda raw: raw["prepare"].update(consensus="median"),
        r"prepare\.consensus = 'median': .*'majority' or 'dawid_skene'",
    ),
    "an alias of two classes": (
        lambda raw: raw["datasets"]["ankle"]["classes"]["neutral"].append("1. PRONÁCIÓ"),
        r"datasets\.ankle: classes: '1\. PRONÁCIÓ' means 'neutral', but .*'pronation' .*remove it",
    ),
    "fold beyond folds": (
        lambda raw: raw["split"].update(folds=5, fold=5),
        r"fold = 5 is not below folds = 5",
    ),
    "two folds": (lambda raw: raw["split"].update(folds=2), r"folds = 2: .*equal to 3"),
    "an ImageNet table without a class": (
        lambda raw: raw["datasets"]["cat_dog"].update(imagenet={"cat": [281]}),
        r"datasets\.cat_dog: imagenet: cat are not the classes cat, dog; give",
    ),
    "an ImageNet class that is two classes": (
        lambda raw: raw["datasets"]["cat_dog"].update(imagenet={"cat": [151], "dog": ["151-268"]}),
        r"datasets\.cat_dog: imagenet: 151 is listed twice",
    ),
    "an ImageNet class that is none": (
        lambda raw: raw["datasets"]["ants_bees"].update(imagenet={"ants": [1310], "bees": [309]}),
        r"datasets\.ants_bees\.imagenet\.ants.* = 1310",
    ),
    "blocks that learn beside a rest that learns too": (
        lambda raw: raw["models"]["vit"].update(unfreeze_last_n=2),
        r"models\.vit: unfreeze_last_n = 2 .*set frozen: true",
    ),
    "steps of the rate out of order": (
        lambda raw: raw["train"].update(decay_at=[0.75, 0.5]),
        r"train\.decay_at.*0.75, 0.5.*is not strictly ascending",
    ),
    "a head's epochs without its rate": (
        lambda raw: raw["models"]["vit"].update(head_epochs=5),
        r"models\.vit: head_epochs = 5 .*give both or neither",
    ),
    "a head first where nothing is pretrained": (
        lambda raw: raw["models"]["grid_pool_cnn"].update(head_epochs=5, head_learning_rate=0.001),
        r"models\.grid_pool_cnn: head_epochs .*set pretrained: true",
    ),
    "a head first where nothing comes after": (
        lambda raw: raw["models"]["dinov2_frozen"].update(head_epochs=5, head_learning_rate=0.001),
        r"models\.dinov2_frozen: head_epochs .*set frozen: false",
    ),
    "ImageNet's head without its weights": (
        lambda raw: raw["models"]["grid_pool_cnn"].update(imagenet_head=True),
        r"models\.grid_pool_cnn: imagenet_head .*set pretrained: true",
    ),
    "zero-shot with epochs": (
        lambda raw: raw["models"]["vit"].update(zero_shot=True),
        r"models\.vit: zero_shot .*epochs: 0",
    ),
    "a logistic regression without pretrained weights": (
        lambda raw: raw["models"]["grid_pool_cnn"].update(logistic_regression=True),
        r"models\.grid_pool_cnn: logistic_regression fits .*set pretrained: true",
    ),
    "a logistic regression of a frozen backbone with epochs": (
        lambda raw: raw["models"]["lite0_probe"].update(epochs=3, learning_rate=0.1),
        r"models\.lite0_probe: logistic_regression with epochs = 3 and frozen = true: .*epochs: 0",
    ),
    "a logistic regression of two layers": (
        lambda raw: raw["models"]["lite0_probe"].update(head_hidden_dim=8),
        r"models\.lite0_probe: logistic_regression .*remove head_epochs, head_hidden_dim",
    ),
    "three hidden layers": (
        lambda raw: raw["models"]["vit"].update(head_hidden_dim=8, head_hidden_layers=3),
        r"models\.vit\.head_hidden_layers = 3",
    ),
    "auto without candidates": (
        lambda raw: raw["models"]["auto"].update(candidates={}),
        r"models\.auto\.candidates",
    ),
    "a candidate of auto with a wrong value": (
        lambda raw: raw["models"]["auto"]["candidates"].update(x={"epochs": 1}),
        r"models\.auto\.candidates\.x\.architecture is missing",
    ),
    "a budget of nothing": (
        lambda raw: raw["models"]["auto"].update(budget=0),
        r"models\.auto\.budget = 0",
    ),
    "weights without a hash": (
        lambda raw: raw["models"]["vit"].update(weights="w.pth"),
        r"models\.vit: weights and weights_sha256 belong together",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_names_key_value_and_remedy(raw, case):
    break_it, message = ERRORS[case]
    break_it(raw)
    (line,) = params.check(raw)
    assert "\n" not in line
    assert re.search(message, line), line


RENAMED = {
    "a section": (
        lambda raw: raw.update(phantom=raw.pop("synthetic")),
        "params.yaml: phantom was renamed to synthetic; rename the key",
    ),
    "a key": (
        lambda raw: raw["train"].update(clip_gradient=raw["train"].pop("max_grad_norm")),
        "params.yaml: train.clip_gradient was renamed to train.max_grad_norm; rename the key",
    ),
    "a key of a section in a section": (
        lambda raw: raw["train"]["augmentation"].update(mirror=True),
        (
            "params.yaml: train.augmentation.mirror was renamed to "
            "train.augmentation.horizontal_flip; rename the key"
        ),
    ),
    "a key of any dataset": (
        lambda raw: raw["datasets"]["ankle"].update(person="x"),
        (
            "params.yaml: datasets.ankle.person was renamed to datasets.ankle.subject_pattern; "
            "rename the key"
        ),
    ),
    "a key of any model": (
        lambda raw: raw["models"]["vit"].update(head_width=0),
        (
            "params.yaml: models.vit.head_width was renamed to models.vit.head_hidden_dim; "
            "rename the key"
        ),
    ),
    "a model": (
        lambda raw: raw.update(model="gap_cnn"),
        "params.yaml: model = 'gap_cnn' was renamed to grid_pool_cnn; change the value",
    ),
    "a dataset": (
        lambda raw: raw.update(dataset="phantom"),
        "params.yaml: dataset = 'phantom' was renamed to synthetic; change the value",
    ),
    "a value": (
        lambda raw: raw["split"].update(group="person"),
        "params.yaml: split.group = 'person' was renamed to subject; change the value",
    ),
    "a removed value": (
        lambda raw: raw["train"].update(scheduler="wsd"),
        "params.yaml: train.scheduler = 'wsd' was removed; use cosine",
    ),
}


@pytest.mark.parametrize("old", RENAMED)
def test_a_name_of_an_earlier_release_is_refused_with_its_new_name(raw, old):
    use_old_name, message = RENAMED[old]
    use_old_name(raw)
    assert params.check(raw) == [message]


def test_a_config_of_an_earlier_release_is_refused_with_its_new_name(raw):
    raw["models"]["gap_cnn"] = raw["models"].pop("grid_pool_cnn")
    raw["model"] = "gap_cnn"
    assert params.check(raw) == [
        "params.yaml: models.gap_cnn was renamed to models.grid_pool_cnn; rename the key",
        "params.yaml: model = 'gap_cnn' was renamed to grid_pool_cnn; change the value",
    ]


def test_every_renamed_key_leads_to_a_key_that_exists(raw):
    for new in params.RENAMED.values():
        table, *names = new.split(".")
        if "*" in names:
            _, kind = next(entry for entry in params.TABLES.values() if entry[0] == table)
            assert names[-1] in kind.__dataclass_fields__
        elif table in params.SECTIONS and names:
            kind = params.SECTIONS[table]
            if names[0] == "augmentation":
                kind = params.Augmentation
            assert names[-1] in kind.__dataclass_fields__
        else:
            assert table in raw
            assert not names or names[0] in raw[table]


def test_all_errors_are_reported_at_once(raw):
    raw["split"]["group"] = "family"
    raw["train"]["batch_size"] = 0
    assert len(params.check(raw)) == 2


def test_numbers_are_read_by_yaml_1_2_as_dvc_writes_them(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("a: 1e-4\nb: no\nc: 010\n", encoding="utf-8")
    assert params.read(file) == {"a": 1e-4, "b": "no", "c": 10}


def test_a_file_that_does_not_parse_or_repeats_a_key_is_named_with_its_line(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("a: 1\na: 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml, line 2: .*duplicate key"):
        params.read(file)
    file.write_text("a: [1\nb: 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml, line 2"):
        params.read(file)
    with pytest.raises(ValueError, match="does not exist"):
        params.read(tmp_path / "absent.yaml")


def test_the_command_prints_errors_to_stderr_and_fails(tmp_path):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "params.yaml").write_text(text.replace("model: grid_pool_cnn", "model: vgg"))
    done = subprocess.run(
        [sys.executable, "-m", "anklealign", "check"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("params.yaml: model = 'vgg' is not a key of models")


def test_imagenet_tables_have_exactly_the_indices_of_their_class_names():
    raw = params.read(ROOT / "params.yaml")
    names = ImageNetInfo("imagenet-1k")

    def called(name):
        dataset = params.section(raw, f"datasets.{name}", Dataset)
        return {
            label: [names.index_to_description(i) for i in indices]
            for label, indices in zip(dataset.classes, dataset.imagenet_indices(), strict=True)
        }

    assert called("ants_bees") == {"ants": ["ant, emmet, pismire"], "bees": ["bee"]}
    found = called("cat_dog")
    assert [name.split(",")[0] for name in found["cat"]] == [
        "tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat",
    ]  # fmt: skip
    # WordNet numbers breeds from Chihuahua to Mexican hairless, between sea lion and timber wolf.
    assert len(found["dog"]) == 118
    assert (found["dog"][0], found["dog"][-1]) == ("Chihuahua", "Mexican hairless")
    assert "bullfrog, Rana catesbeiana" not in found["cat"] + found["dog"]
    vehicles = called("car_bike")
    assert [name.split(",")[0] for name in vehicles["Bike"]] == [
        "bicycle-built-for-two", "moped", "motor scooter", "mountain bike",
    ]  # fmt: skip
    assert [name.split(",")[0] for name in vehicles["Car"]] == [
        "ambulance", "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T",
        "pickup", "racer", "sports car",
    ]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [("dataset", "car_bike"), ("model", "vit"), ("seed", 7)])
def test_params_yaml_has_the_style_of_dvcs_writer(tmp_path, key, value):
    """`dvc exp run -S` rewrites the file; only the changed line may differ."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    with modify_yaml(str(tmp_path / "params.yaml")) as values:
        values[key] = value
    before, after = (
        (folder / "params.yaml").read_text(encoding="utf-8").splitlines()
        for folder in (ROOT, tmp_path)
    )
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert changed[0][1].startswith(f"{key}: {value}")


def test_the_hash_of_shared_weights_stands_once():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert len(re.findall(r"\b0aac8133", text)) == 1
