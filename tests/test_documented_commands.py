"""The commands of README.md and docs/ run in their order, each page in a fresh clone.

A page is one Bash script: its console, sh and Python blocks from top to bottom. What cannot run in
a test is in SKIPPED, with the reason. A block of another kind has no command, except FILES. Of the
commands in sentences, a page runs one of the same name, or IN_SENTENCES has the reason why not. The
clones have a small synthetic set and small networks.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthetic import camera
from tests.test_docs import pages
from tests.test_dvc import Clone, small_clone

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*pages(), ROOT / "CONTRIBUTING.md"]
SHELL, PYTHON = {"console", "sh"}, "python"
OTHER = {"text", "yaml", "nginx", "mermaid"}  # output, files and pictures
PORT, PHOTO = "PORT_OF_THE_SERVICE", "PHOTO_OF_THE_READER"

# How a command starts -> why no test runs it.
SKIPPED = {
    "docker ": "needs a Docker engine",
    "pip install ": "needs a package index",
    "python -m docs.offline_plots": "downloads a library with npm",
    "python -m benchmarks.": "takes minutes to hours, or photos that are not in the repository",
    "duckdb ": "is no dependency",
    "ray start ": "stays in the background; tests/io/test_execution.py starts a cluster (slow)",
    "anklealign predict ~/photos --out predictions.csv --backend ray ": "needs a GPU",
    "kubectl ": "needs a Kubernetes cluster",
    "make .venv/dev": "installs packages; CI runs it",
    "make test ": "runs this test; CI runs it",
    "pre-commit ": "is no dependency",
    "torchrun --nnodes=2 ": "needs two hosts",
    "dvc commit --force train": "records what two hosts trained",
    "dvc remote add --default team ssh://": "needs a server; the line above is a folder",
    "dvc remote add --default team s3://": "needs a server; the line above is a folder",
    "anklealign add https://": "needs the network; tests/cli/test_download.py has a server",
    "anklealign export --web ": "downloads the runtime; tests/service/test_web_demo.py opens it",
    "dvc exp run -S dataset=ants_bees -S model=mobilenet_v2_frozen": "needs weights from the hub",
    "dvc exp run --queue ": "needs weights from the hub; tests/test_dvc.py queues four runs",
    "dvc queue start ": "starts the runs of the line above",
    "dvc exp run -S dataset=my_photos -S model=auto": "fine-tunes four networks",
}  # fmt: skip

# First line of a block with commands that is a file -> why no test runs it.
FILES = {
    "#!/bin/bash": "a job of a Slurm cluster",
    "# task.yaml: sky launch task.yaml": "a task of SkyPilot, which needs a cloud account",
}

# How a command in a sentence starts -> why no page runs a command of this name.
IN_SENTENCES = {
    "anklealign convert": "needs labels of another tool; tests/cli/test_label_conversion.py",
    "anklealign check": "a stage of `make repro`; tests/cli/test_main.py",
    "anklealign export": "`make export` runs it",
    "anklealign run": "`make repro` runs it",
    "anklealign summary": "`make repro` runs it; tests/cli/test_summary.py",
    "anklealign sync-deps": "edits dvc.yaml; tests/test_dvc.py",
    "dvc --version": "is a time that was measured",
    "chmod u+r": "is a remedy for photos that cannot be read",
    "dvc add": "`anklealign add` runs it",
    "dvc cache ": "changes the cache of the tests",
    "dvc config ": "changes a folder without git",
    "dvc dag": "is the program that a license belongs to",
    "dvc exp pull ": "needs two machines",
    "dvc exp push": "needs two machines",
    "dvc gc ": "deletes files of other clones of the tests",
    "dvc import-url": "tests/cli/test_download.py",
    "dvc update ": "tests/cli/test_download.py",
    "git init": "the clones have git",
    "make PYTHON=": "installs packages",
    "make charts": "needs npm",
    "make check-lock": "CI runs it",
    "make check": "runs `anklealign check`",
    "make docs": "tests/test_docs.py builds the site",
    "make format": "edits the code",
    "make lock": "needs a package index",
    "make pr-report": "runs `anklealign pr-report`",
    "make report": "runs `anklealign report`",
    "make sync-deps": "runs `anklealign sync-deps`",
    "make test": "runs this test; CI runs it",
    "npm ": "needs a package index",
    "pip install ": "needs a package index",
    "pytest ": "is a test",
    "python -m benchmarks.": "takes minutes to hours, or photos that are not in the repository",
    "python -m docs.": "tests/test_docs.py and tests/test_licenses.py compare what it writes",
    "python -m http.server ": "is Python's own; tests/service/test_web_demo.py serves the folder",
}

# Command -> why it ends with an error, as the page says.
REFUSED = {
    "anklealign diff main workspace": "the test photos differ",
    "git merge main": "both sides have results",
}

# Command -> what the reader did before, by hand.
BY_HAND = {
    "anklealign correct label_issues/label_issues.csv --reviewer R2": (
        "sed -i -e '1s/$/,new_label/' -e '2s/$/,neutral/' -e '3,$s/$/,/' "
        "label_issues/label_issues.csv"
    ),
    "ANKLEALIGN_MODEL=models make serve": (
        "mkdir -p models runs/a runs/b && cp -r model models/ankles && cp -r model models/bees && "
        "cp -r model runs/a/ && cp -r model runs/b/"
    ),
    "git merge main": (  # a colleague changed main
        "git checkout --quiet main && dvc checkout --quiet && dvc exp run --quiet "
        "-S evaluate.bootstrap=150 && "
        "git commit --quiet --all --message resamples && git checkout --quiet more-photos && "
        "dvc checkout --quiet"
    ),
}

# Text of a page -> text of the test: paths, addresses, and a shorter search.
REPLACED = {
    "/mnt/share/anklealign": '"$HOME/remote"',
    "git clone ADDRESS_OF_THIS_REPOSITORY": 'cd $(mktemp -d -p "$PARENT") && git clone "$PROJECT"',
    "http://localhost:8000": f"http://localhost:{PORT}",
    "=@photo.jpg": "=@$HOME/photos/new/1.jpg",
    "-binary @photo.jpg": "-binary @$HOME/photos/new/1.jpg",
    "=@other.jpg": "=@$HOME/photos/new/2.jpg",
    '"photo.jpg"': f'"{PHOTO}"',
    "--trials 20": "--trials 1",
    "search-grid-pool-cnn-7": "search-grid-pool-cnn-0",
}

# The installation is that of the tests: its targets count as made. A service stays in the
# background until the next one starts or the page ends.
MAKE = """#!/bin/bash
mkdir -p .venv/bin && touch .venv/bin/activate
make() {{ {make} -o .venv/repro -o .venv/serve -o .venv/dev "$@"; }}
if [ "$1" != serve ]; then make "$@"; exit; fi
url=http://localhost:$ANKLEALIGN_PORT/health/ready
[ -f ~/service ] && kill -- -$(cat ~/service)
while curl --silent --output /dev/null $url; do sleep 1; done
set -m; make serve >~/service.log 2>&1 & echo $! >~/service
for second in $(seq 90); do
    curl --silent --output /dev/null $url && exit 0
    sleep 1
done
cat ~/service.log; exit 1
"""
# Features of pretrained weights and straight or clearly tilted legs: `label-issues` refuses a model
# that is no better than chance, and some 60 training photos are too few for a network from scratch.
FAST = {
    "model": "lite0_probe",
    "models.lite0_probe.image_size": 96,
    "synthetic.photos": 90,
    "synthetic.difficulty": 0,
    "evaluate.robustness": 0,
    "evaluate.learning_curve": 0,
    "evaluate.bootstrap": 100,
    "train.repeats": 1,
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its line in the page, and its commands or lines of Python."""

    kind: str
    line: int
    commands: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    result = []
    for match in found:
        indent, kind, content = match.groups()
        lines = [line.removeprefix(indent) for line in content.splitlines()]
        if kind in SHELL:
            lines = "\n".join(lines).replace("\\\n", " ").splitlines()
            prompt = "$ " if kind == "console" else ""
            # Of a console block, the lines without a prompt are output.
            lines = [line.removeprefix(prompt) for line in lines if line.startswith(prompt)]
        number = text.count("\n", 0, match.start()) + 1
        result.append(Block(kind, number, tuple(lines)))
    return result


def bare(command: str) -> str:
    """Return a command without its comment."""
    return re.sub(r"\s+# .*", "", command).strip()


def script(page: Path, folder: Path) -> str:
    """Return the commands of a page as a Bash script that prints each one and ends at an error."""
    lines = ["set -e"]
    for block in blocks(page):
        if block.kind == PYTHON:
            file = folder / f"{page.stem}_{block.line}.py"
            photo = str(folder / "photo.jpg")
            text = replaced("\n".join(block.commands)).replace(PHOTO, photo)
            file.write_text(text, encoding="utf-8")
            lines += [f"echo '$ python block, line {block.line}'", f"python {file}"]
        for command in block.commands if block.kind in SHELL else ():
            if command.startswith(tuple(SKIPPED)):
                continue
            lines.append(BY_HAND.get(bare(command), ""))
            lines.append(f"echo {shlex.quote(f'$ {command}')}")
            if bare(command) in REFUSED:
                lines.append(f"if {bare(command)}; then echo 'no error'; exit 1; fi")
            else:
                lines.append(replaced(command))
    return "\n".join(lines)


def replaced(text: str) -> str:
    """Return text of a page with the paths and addresses of the test."""
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return text


RUN = [p for p in PAGES if any(b.kind in SHELL | {PYTHON} for b in blocks(p))]


def every_command() -> list[str]:
    return [c for p in RUN for b in blocks(p) if b.kind in SHELL for c in b.commands]


def programs() -> str:
    """Return a pattern of the first words of commands: those of all blocks, and some more."""
    words = {command.split()[0] for command in every_command()} - {"."}
    return "|".join(map(re.escape, sorted(words | {"npm", "pytest", "ray", "srun", "sky", "uv"})))


def in_sentences() -> set[str]:
    """Return the commands of a program and an argument in the text outside of blocks."""
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
        code = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
        found |= {span for span in code if re.match(rf"({programs()}) \S", span)}
    return found


def name(command: str) -> str:
    """Return a command's program and subcommand, such as `dvc exp run`."""
    words = command.split()
    length = 3 if words[:2] in (["dvc", "exp"], ["dvc", "queue"], ["python", "-m"]) else 2
    return " ".join(words[:length])


def test_every_block_has_a_known_kind():
    kinds = {(page.name, b.line): b.kind for page in PAGES for b in blocks(page)}
    assert len(kinds) > 60
    assert {place: k for place, k in kinds.items() if k not in SHELL | OTHER | {PYTHON}} == {}
    fences = sum(page.read_text(encoding="utf-8").count("```") for page in PAGES)
    assert fences == 2 * len(kinds)


def test_a_block_of_text_has_no_command():
    usage = ROOT / "docs/reference/cli.md"  # with its options, generated
    found = {
        f"{page.name}, line {b.line}: {b.commands[0]}"
        for page in set(PAGES) - {usage}
        for b in blocks(page)
        if b.kind in OTHER and b.commands[0] not in FILES
        for line in b.commands
        if re.match(rf" *(\$ )?({programs()}) \S", line)
    }
    assert found == set(), "mark it as console, and skip it in SKIPPED if it cannot run"


def test_an_indented_block_has_no_command():
    found = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in re.findall(r"(?<=\n\n) {4,}\S.*", page.read_text(encoding="utf-8"))
        if re.match(rf" +(\$ )?({programs()}) ", line)
    ]
    assert found == [], "mark it as console"


def test_a_command_in_a_sentence_is_run_in_a_block_or_has_a_reason():
    run = {
        name(part)
        for command in every_command()
        if not command.startswith(tuple(SKIPPED))
        for part in bare(command).split(" && ")
    }
    sentences = in_sentences()
    assert len(sentences) > 100
    missing = {c for c in sentences if name(c) not in run and not c.startswith(tuple(IN_SENTENCES))}
    assert missing == set()
    needed = {c for c in sentences if name(c) not in run}
    assert [s for s in IN_SENTENCES if not any(c.startswith(s) for c in needed)] == []


def test_every_exception_is_one_of_a_command():
    commands = every_command()
    assert len(commands) > 90
    unused = [start for start in SKIPPED if not any(c.startswith(start) for c in commands)]
    exact = {bare(command) for command in commands}
    unused += [command for command in [*REFUSED, *BY_HAND] if command not in exact]
    text = "\n".join([*commands, *(c for p in RUN for b in blocks(p) for c in b.commands)])
    assert unused + [old for old in REPLACED if old not in text] == []
    assert FILES.keys() <= {c for p in RUN for b in blocks(p) for c in b.commands}


def test_most_commands_run():
    commands = every_command()
    skipped = [command for command in commands if command.startswith(tuple(SKIPPED))]
    assert len(skipped) < len(commands) / 5


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a home folder with the photos that the pages name."""
    folder = tmp_path_factory.mktemp("home")
    for label, angle in (("pronation", 15), ("neutral", 4), ("supination", -7)):
        (folder / "photos/ankles" / label).mkdir(parents=True)
        for number in range(8):
            name = f"{label}{number}"
            capture = camera.Capture(name, name, 1, angle - 1, angle + 1, side=200)
            photo = Image.fromarray(camera.photograph(1, capture).pixels)
            photo.save(folder / "photos/ankles" / label / f"{name}.jpg")
    for name in ("other-site", "ankles_march"):
        shutil.copytree(folder / "photos/ankles", folder / "photos" / name)
    shutil.make_archive(str(folder / "downloads/ankles"), "zip", folder / "photos/ankles")
    for number in range(48):
        ids = divmod(number, 2)
        label = ("cat", "dog")[ids[1]]
        for path in (
            f"bikes/{('Bike', 'Car')[ids[1]]}/{number}.jpg",
            f"pets/{label}.{ids[0]}.jpg",
            f"animals/photos/{label[0]}{ids[0]}_1.jpg",
            *([f"new/{number}.jpg"] if number in (1, 2) else []),
        ):
            file = folder / "photos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(file)
    rows = [f"photos/{'cd'[n % 2]}{n // 2}_1.jpg,{n % 2}" for n in range(48)]
    (folder / "photos/animals/labels.csv").write_text("\n".join(["file,label", *rows]))
    return folder


def picture(number: int) -> Image.Image:
    """Return a photo of its own that is neither blurred nor dark."""
    cells = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(cells).resize((192, 192), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Clone:
    """Return a repository as on a server: its commit has the results of a run."""
    clone = small_clone(tmp_path_factory.mktemp("base"), FAST)
    clone("git", "branch", "--move", "main")
    clone("dvc", "repro")
    clone("git", "add", "--all")
    clone("git", "commit", "--quiet", "--message", "results")
    return clone


@pytest.fixture
def reader(base, home, tmp_path) -> Iterator[Clone]:
    """Return a fresh clone whose commands run as a reader types them; end its service."""
    tools, settings = tmp_path / "bin", tmp_path / "dvc"
    tools.mkdir()
    settings.mkdir()
    (settings / "config").write_text(f"[cache]\n    dir = {base.folder / '.dvc/cache'}\n")
    (tools / "make").write_text(MAKE.format(make=shutil.which("make")))
    (tools / "anklealign").write_text('#!/bin/sh\nexec python -m anklealign "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (home / "service").unlink(missing_ok=True)
    shutil.rmtree(home / "remote", ignore_errors=True)
    base("git", "clone", "--quiet", ".", str(tmp_path / "project"))
    clone = Clone(tmp_path / "project")
    (clone.folder / ".venv/bin").mkdir(parents=True)
    (clone.folder / ".venv/bin/activate").touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    clone.environment |= {
        "PATH": f"{tools}{os.pathsep}{clone.environment['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": ".",  # the clone that the reader is in
        "PARENT": str(tmp_path),
        "PROJECT": str(clone.folder),
        "DVC_GLOBAL_CONFIG_DIR": str(settings),
        "ANKLEALIGN_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    yield clone
    if (home / "service").exists():
        with contextlib.suppress(ProcessLookupError):  # it did not start
            os.killpg(int((home / "service").read_text()), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_their_order(page, reader, tmp_path):
    clone = reader
    picture(1).save(tmp_path / "photo.jpg")
    commands = script(page, tmp_path).replace(PORT, clone.environment["ANKLEALIGN_PORT"])
    # Pages that do not begin with a clone are read after `dvc pull`.
    if "git clone" not in commands:
        clone("dvc", "checkout", "--quiet")
    print(clone("bash", "-c", commands))
