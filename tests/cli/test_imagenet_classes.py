"""anklealign/cli/imagenet_classes.py: the ImageNet classes that class names mean."""

from pathlib import Path

import pytest

from anklealign.cli import add, imagenet_classes
from anklealign.config import params

CARS = (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817)


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["cats", "dogs"], [("281-285",), ("151-268",)]),
        (["CAT", "Dog"], [("281-285",), ("151-268",)]),
        (["Cars", "1_bikes"], [CARS, (444, 665, "670-671")]),
        (["ants", "Bees"], [(310,), (309,)]),
        (["tiger_sharks", "Great-White-Shark"], [(3,), (2,)]),
        (["foxes", "wolves", "butterflies"], [("277-280",), ("269-271",), ("321-326",)]),
        (["oranges", "lemon"], [(950,), (951,)]),
        (["school_buses", "fire engine"], [(779,), (555,)]),
        (["n02085620-Chihuahua", "n01440764"], [(151,), (0,)]),
    ],
)
def test_names_in_any_case_and_number_have_their_imagenet_classes(names, meant):
    assert imagenet_classes.find(names) == dict(zip(names, meant, strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ["good", "bad"],
        ["cat", "defect"],
        ["hip", "chest"],  # of a rose, of drawers
        ["nail", "ear"],  # of steel, of corn
        ["mouse", "rat"],  # of a computer
        ["crane", "heron"],  # a bird or a machine
        ["kite", "airplane"],  # a bird, but here a toy
        ["bird", "hen"],  # a hen is a bird
        ["dog", "n02085620"],  # and a Chihuahua a dog
        ["cat", "cats"],
        ["orang", "red"],
        [],
    ],
)
def test_names_that_may_mean_something_else_have_none(names):
    assert imagenet_classes.find(names) is None


def test_every_group_holds_the_imagenet_classes_of_its_name():
    names = imagenet_classes._names()
    assert len([name for name in names if imagenet_classes.WORDNET.fullmatch(name)]) == 1000
    for group, examples in {
        "cat": ("tabby", "egyptian cat"), "dog": ("chihuahua", "mexican hairless"),
        "bird": ("cock", "great grey owl", "black grouse", "black swan", "white stork"),
        "frog": ("bullfrog", "tree frog"), "turtle": ("loggerhead", "box turtle"),
        "lizard": ("banded gecko", "komodo dragon"), "snake": ("thunder snake", "sidewinder"),
        "spider": ("barn spider", "wolf spider"), "shark": ("tiger shark", "great white shark"),
        "crab": ("dungeness crab", "king crab"), "wolf": ("timber wolf", "red wolf"),
        "fox": ("red fox", "grey fox"), "bear": ("brown bear", "sloth bear"),
        "beetle": ("tiger beetle", "weevil"), "butterfly": ("admiral", "lycaenid"),
        "rabbit": ("wood rabbit", "hare"), "monkey": ("guenon", "squirrel monkey"),
        "elephant": ("indian elephant", "african elephant"), "horse": ("sorrel",),
        "bicycle": ("mountain bike",), "motorbike": ("moped", "motor scooter"),
        "airplane": ("airliner", "warplane"), "car": ("ambulance", "sports car"),
    }.items():  # fmt: skip
        own = imagenet_classes._expanded(imagenet_classes.GROUPS[group])
        assert {names[example] for example in examples} <= set(own), group


def test_the_config_of_a_new_set_has_the_map_of_its_own_spelling(folder):
    root = folder(*(f"{name}/{n}.jpg" for name in ("Cats", "Dogs") for n in range(4)))
    raw = params.read(Path(__file__).resolve().parents[2] / "params.yaml")
    dataset = add.propose(root, "mine", None, raw, {}).dataset
    assert dataset.imagenet == {"Cats": ("281-285",), "Dogs": ("151-268",)}
    for forced in ({"imagenet": None}, {"classes": {"good": ["Cats"], "bad": ["Dogs"]}}):
        assert add.propose(root, "mine", None, raw, forced).dataset.imagenet is None
