"""Read labels from folder names, or from file names, by the shape of the folder tree."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anklealign.cli.dataset_config import scalar
from anklealign.cli.layout_candidates import LayoutCandidate, preview
from anklealign.config.class_names import fold, unnumbered
from anklealign.ingest.filename_matching import is_code
from anklealign.ingest.inventory import (
    PREDEFINED_SPLITS,
    class_root_of,
    escape_unprintable,
    split_of_name,
)
from anklealign.ingest.wording import counted

# Names whose last word is one of these, and that differ by their number only, are parts of one set.
PART_WORDS = {
    "part", "images", "image", "img", "imgs", "photos", "pictures", "batch", "folder", "chunk",
    "archive", "set", "split", "dir", "data", "disk", "zip",
}  # fmt: skip
# Patterns of file names with a label, tried in this order: cat.0.jpg, 0_cat.jpg.
LABEL_PATTERNS = (
    r"(?:^|/)(?P<label>[^/]*?[^\W\d_][^/]*?)[ ._-]*\(?\d+\)?\.\w+$",
    r"(?:^|/)\d+[ ._-]+(?P<label>[^/]*?[^\W\d_])\.\w+$",
)
# How file managers name a copy of a folder, in English, German, French and Hungarian.
COPY = re.compile(
    r"(?P<before>.+?)(?: - |[ _-])\(?(?:copy|kopie|copie|m[aá]solat)(?: ?\(?\d+\)?)?\)?"
    r"|(?P<numbered>.+?) ?\(\d+\)|(?:copy of|kopie von|copie de) (?P<after>.+)",
    re.IGNORECASE,
)
UNSORTED = {
    "unsorted", "unlabeled", "unlabelled", "unlabeled images", "todo", "to do", "to sort", "temp",
    "tmp", "trash", "deleted", "unsortiert", "papierkorb", "non trie", "a trier", "rendezetlen",
}  # fmt: skip
WASTE = {"trash", "papierkorb"}
MOST_STRAY = 0.01  # share of photos beside the only folder, as in a screenshot beside PetImages/
FEWEST = 3  # photos of a label in a file name
SHOWN = 6  # names in a message
MOST_ROOTS = 12  # folders in an option; more do not fit into a line


class FolderTree:
    """The folders that hold photos, at any depth."""

    def __init__(self, photos: Iterable[str]) -> None:
        """Count the photos of each folder."""
        self.below: Counter[str] = Counter()  # in the folder or below it
        self.children: dict[str, set[str]] = defaultdict(set)  # names of folders with photos
        for photo in photos:
            folder = photo.rpartition("/")[0]
            self.below[folder] += 1
            while folder:
                above, _, name = folder.rpartition("/")
                self.children[above].add(name)
                self.below[above] += 1
                folder = above

    def unwrap(self, folder: str) -> str:
        """Return the folder inside, while it holds next to nothing but a single folder."""
        while len(self.children[folder]) == 1:
            (name,) = self.children[folder]
            inner = join(folder, name)
            if self.below[folder] - self.below[inner] > MOST_STRAY * self.below[folder]:
                break
            folder = inner
        return folder


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder, where '' is the top."""
    return f"{folder}/{name}" if folder else name


def read_folders(
    photos: Sequence[str], forced: Mapping[str, Any] | None = None
) -> tuple[LayoutCandidate | None, list[str]]:
    """Return the class folders with their predefined splits, and remarks on the tree.

    If the user has `forced` class_roots, the folders are those below them.
    """
    chosen = (forced or {}).get("class_roots")
    if chosen and isinstance(chosen, Mapping):
        texts, labels = _labels(photos, {str(root): "" for root in chosen})
        number = counted(texts.total(), "photo", "photos")
        summary = f"{number} in {counted(len(texts), 'folder', 'folders')}: {preview(texts)}"
        reading = LayoutCandidate("folders", summary, texts, labels=labels)
        return (reading if len(texts) > 1 else None), []
    tree = FolderTree(photos)
    top = tree.unwrap("")
    while top and len(tree.children[top]) < 2:
        # The wrapper of a single class, or a class with one subfolder: no two classes.
        if not tree.children[top]:
            names = escape_unprintable(top.partition("/")[0])
            return None, [f"folders: all photos are in {names}; two class folders are needed"]
        top = join(top, min(tree.children[top]))
    roots, aside = _split_roots(tree, top)
    if roots is None:
        names = ", ".join(sorted(map(escape_unprintable, tree.children[top])))
        return None, [f"folders: {names} are named after splits and hold no class folders"]
    texts, labels = _labels(photos, roots)
    if len(texts) < 2:
        return None, [f"folders: two class folders are needed; found: {preview(texts) or 'none'}"]
    plain = set(roots) == {""} or (
        all(root.casefold() in PREDEFINED_SPLITS for root in roots) and not aside
    )
    below = ""
    if set(roots) != {""}:
        below = ", below " + ", ".join(
            f"{escape_unprintable(root)} ({split})" if split else escape_unprintable(root)
            for root, split in sorted(roots.items())
        )
    remarks = [
        f"{escape_unprintable(join(top, name))}: "
        f"{counted(tree.below[join(top, name)], 'photo is', 'photos are')} set aside: {why}"
        for name, why in aside.items()
    ]
    nested = _nested(roots, labels)
    doubt = _doubt(tree, top, roots, texts, nested) or _doubt_of_copies(labels)
    if not doubt and (remark := _remark_on_nested(tree, roots, nested)):
        remarks.append(remark)
    return LayoutCandidate(
        "folders",
        f"{texts.total()} photos in {len(texts)} folders: {preview(texts)}{below}",
        texts,
        {} if plain else {"class_roots": dict(sorted(roots.items()))},
        tuple(remarks),
        doubt,
        question=""
        if "classes" in (forced or {})
        else _question_of_copies(texts) or _question_of_unsorted(labels),
        labels=labels,
    ), []


def split_folders(photos: Iterable[str]) -> dict[str, str]:
    """Return the folders of predefined splits at any depth, and their splits.

    They are named train, val or test, or lie beside a folder that is named after another split.
    """
    roots: dict[str, str] = {}
    for above, names in sorted(FolderTree(photos).children.items()):
        splits = {name: split for name in sorted(names) if (split := split_of_name(name))}
        several = len(set(splits.values())) > 1
        roots |= {
            join(above, name): split
            for name, split in splits.items()
            if several or name.casefold() in PREDEFINED_SPLITS
        }
    return roots


def _split_roots(tree: FolderTree, top: str) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Return the folders that hold class folders, and the folders to set aside with the reason.

    Folders named after splits are splits if class folders are below them: at least two of those
    folders have class folders in common, or there is nothing else. The first result is None if
    there are only splits without class folders.
    """
    splits = {name: split_of_name(name) for name in sorted(tree.children[top])}
    named = [name for name, split in splits.items() if split]
    inner = {name: tree.unwrap(join(top, name)) for name in named}
    classes = {name: tree.children[inner[name]] for name in named}
    # A lone class folder below a split is unwrapped, too; compare it with the other splits.
    for name in named:
        folder = inner[name]
        above, _, last = folder.rpartition("/")
        if not classes[name] and any(last in classes[other] for other in named):
            inner[name], classes[name] = above, {last}
    holders = [name for name in named if len(classes[name]) > 1]
    holders += [
        name for name in named
        if name not in holders and any(classes[name] & classes[other] for other in holders)
    ]  # fmt: skip
    shared = any(
        classes[one] & classes[other] for one in holders for other in holders if one < other
    )
    others = [name for name in splits if name not in named]
    if not (shared or (holders and not others)):
        return (None if named and not others else {top: ""}), {}
    aside = {name: "they are without a label" for name in named if name not in holders}
    aside |= dict.fromkeys(others, "it is neither a split nor a class")
    return {inner[name]: splits[name] for name in holders}, aside


def _labels(photos: Iterable[str], roots: Mapping[str, str]) -> tuple[Counter[str], dict[str, str]]:
    """Return the number of photos of each class folder, and the class folder of each photo."""
    labels: dict[str, str] = {}
    for photo in photos:
        root = class_root_of(photo, roots)
        name, _, rest = photo.removeprefix(root or "").removeprefix("/").partition("/")
        if root is not None and rest:
            labels[photo] = name
    return Counter(labels.values()), labels


def _nested(roots: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Return the photos of each class by the folder below the class folder, without numbers."""
    nested: dict[str, Counter[str]] = defaultdict(Counter)
    for photo, name in labels.items():
        root = class_root_of(photo, roots) or ""
        folder, _, rest = (
            photo.removeprefix(root).removeprefix("/").partition("/")[2].partition("/")
        )
        if rest:
            nested[unnumbered(fold(folder))][name] += 1
    return nested


def _remark_on_nested(
    tree: FolderTree, roots: Mapping[str, str], nested: Mapping[str, Counter[str]]
) -> str:
    """Return the remark on folders below the class folders that are named, not numbered, or ''."""
    holders = set().union(*nested.values())
    photos = sum(count.total() for count in nested.values())
    words = {re.sub(r"[\W\d_]+$", "", name) for name in nested if not is_code(name)} - {""}
    if len(words) <= len(holders) or 2 * photos < sum(tree.below[root] for root in roots):
        return ""
    option = _class_roots_option(tree, roots, holders)
    return (
        f"the folders below the class folders are not read ({_first(list(nested))}); if they are "
        f"the classes, pass {option}; if they are subjects, set subject_pattern"
    )


def _class_roots_option(tree: FolderTree, roots: Mapping[str, str], holders: set[str]) -> str:
    """Return the option that reads the folders below class folders as classes."""
    above = {
        join(root, name): split
        for root, split in sorted(roots.items())
        for name in sorted(tree.children[root] & holders)
    }
    shown = scalar(dict(list(above.items())[:MOST_ROOTS]))
    if len(above) > MOST_ROOTS:
        shown = shown.removesuffix("}") + ", …}"
    return f"--set {shlex.quote(f'class_roots={shown}')}"


def _doubt(
    tree: FolderTree,
    top: str,
    roots: Mapping[str, str],
    texts: Counter[str],
    second: Mapping[str, Counter[str]],
) -> str:
    """Return why the folder names may not be labels, or ''."""
    classes = {unnumbered(fold(name)) for name in texts}
    nested = {name: above for name, above in second.items() if name in classes}
    for holder in sorted({above for each in nested.values() for above in each}):
        inside = sorted(name for name, above in nested.items() if holder in above)
        if len(inside) > 1:
            return (
                f"{escape_unprintable(holder)} holds folders with the names of other classes: "
                f"{_first(inside)}; if it is not a class, give a folder without it"
            )
    recurring = sorted(name for name, above in second.items() if len(above) > 1)
    if len(recurring) > 1 and not all(split_of_name(name) for name in recurring):
        holders = set().union(*(second[name] for name in recurring))
        option = _class_roots_option(tree, roots, holders)
        return (
            f"{_first(recurring)} recur below {len(texts)} folders; if they are the classes, pass "
            f"{option} with those of the folders above them that are to be read; if some are "
            "copies of others, move them out of the folder"
        )
    named = [name for name in tree.children[top] if split_of_name(name)]
    if set(roots.values()) == {""} and any(
        len(tree.children[tree.unwrap(join(top, name))]) > 1 for name in named
    ):
        return (
            f"{_first(named)} is named after a split and holds folders, but lies beside other "
            "folders; if it holds the classes, pass it as the folder"
        )
    if all(is_code(name.casefold()) for name in texts):
        return (
            f"{preview(texts)} look like collectors' codes, not labels; put each one's Label "
            "Studio export into its folder"
        )
    stems = {re.sub(r"[\W_]*\d+$", "", name.casefold()) for name in texts}
    if len(stems) == 1 and re.split(r"[\W_]+", min(stems))[-1] in PART_WORDS:
        return f"{preview(texts)} look like parts of one set, not classes"
    return ""


def _question_of_copies(texts: Iterable[str]) -> str:
    """Return the question about folders that a file manager named as copies of others, or ''."""
    names = {fold(name): name for name in texts}
    copies = {
        name: original
        for name in sorted(texts)
        if (match := COPY.fullmatch(name))
        and (original := names.get(fold(match["before"] or match["numbered"] or match["after"])))
    }
    if not copies:
        return ""
    classes: dict[str, list[str]] = {name: [] for name in sorted(texts) if name not in copies}
    for name, original in copies.items():
        classes.setdefault(original, []).append(name)
    name, original = next(iter(copies.items()))
    option = shlex.quote(f"classes={scalar(classes)}")
    return (
        f"folder {escape_unprintable(name)!r} is named as a copy of "
        f"{escape_unprintable(original)!r}; if its photos have that label, pass --layout folders "
        f"--set {option}; if it is no class, move it out of the folder"
    )


def _question_of_unsorted(labels: Mapping[str, str]) -> str:
    """Return the question about folders that are named as if they held no class, or ''.

    Waste is a class if it names its photos as the other folders do: trash/trash1.jpg beside
    paper/paper1.jpg. What lies in a bin has the names of other folders.
    """
    photos = Counter(labels.values())
    named = Counter(
        name for path, name in labels.items()
        if fold(path.rpartition("/")[2]).startswith(fold(name))
    )  # fmt: skip
    own_names = all(2 * named[name] > count for name, count in photos.items())
    names = sorted(photos)
    unsorted = [
        name for name in names
        if (folded := fold(name).strip("_ ")) in UNSORTED and not (folded in WASTE and own_names)
    ]  # fmt: skip
    if not unsorted:
        return ""
    without, all_classes = (
        shlex.quote(f"classes={scalar({name: [] for name in names if name not in left_out})}")
        for left_out in (unsorted, [])
    )
    return (
        f"{_first(unsorted)} may hold photos without a label; pass --layout folders "
        f"--set {without} to leave them out, or --set {all_classes} if it is a class"
    )


def _doubt_of_copies(labels: Mapping[str, str]) -> str:
    """Return the doubt about a folder whose photos have the names of those of all others, or ''."""
    names: dict[str, list[str]] = defaultdict(list)
    for photo, folder in sorted(labels.items()):
        names[folder].append(photo.rpartition("/")[2])
    largest = max(names, key=lambda folder: len(names[folder]))
    others = sorted(name for folder in names if folder != largest for name in names[folder])
    if len(names) < 3 or sorted(names[largest]) != others:
        return ""
    return (
        f"{escape_unprintable(largest)} holds the photos of all other folders, by their names; if "
        "it is no class, move it out of the folder"
    )


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(map(escape_unprintable, sorted(names)[:SHOWN]))
    return shown + (", …" if len(names) > SHOWN else "")


def read_file_names(
    photos: Sequence[str], forced: Mapping[str, Any] | None = None
) -> LayoutCandidate | None:
    """Return the labels that recur in file names; chosen only if the user confirms them.

    If the user has `forced` a label_pattern, the labels are what it finds.

    Raises:
        ValueError: The label_pattern is not a regular expression with a group label.
    """
    own = (forced or {}).get("label_pattern")
    for pattern in (own,) if own else LABEL_PATTERNS:
        try:
            compiled = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise ValueError(
                f"label_pattern: {pattern!r} is no regular expression: {error}"
            ) from None
        if "label" not in compiled.groupindex:
            raise ValueError(f"label_pattern: {pattern!r} has no group (?P<label>...)")
        labels = {photo: match["label"] for photo in photos if (match := compiled.search(photo))}
        texts = Counter(labels.values())
        recurring = {text for text, count in texts.items() if count >= FEWEST}
        covered = sum(texts[text] for text in recurring)
        few = covered < 0.9 * len(labels) or 2 * covered < len(photos)
        if len(recurring) < 2 or (few and not own):
            continue
        splits = {photo.partition("/")[0] for photo in labels if "/" in photo}
        keys: dict[str, object] = {"label_pattern": pattern}
        if len({split_of_name(name) for name in splits} - {""}) > 1 and not (
            {name.casefold() for name in splits} <= PREDEFINED_SPLITS.keys()
        ):
            keys["class_roots"] = {name: split_of_name(name) for name in sorted(splits)}
        return LayoutCandidate(
            "file_names",
            f"{covered} of {len(photos)} file names contain one of {len(recurring)} words: "
            f"{preview(Counter({text: texts[text] for text in recurring}))}",
            texts,
            keys,
            doubt=""
            if own
            else f"the file names contain words that may be the labels: {preview(texts)}",
            labels=labels,
        )
    return None
